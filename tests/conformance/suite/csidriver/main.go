// A storage driver for tests: a volume is a folder of the node, bind-mounted into pods. It registers itself with the kubelet, and has the
// node service of CSI alone: volumes are made by hand. Generated server code and gRPC are the real ones.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type driver struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	name, node, data, endpoint string
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered %v %s", s.PluginRegistered, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	segments := map[string]string{"topology." + d.name + "/node": d.node}
	return &csi.NodeGetInfoResponse{NodeId: "id-of-" + d.node, MaxVolumesPerNode: 7, AccessibleTopology: &csi.Topology{Segments: segments}}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	rpc := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}}}}, nil
}

func bind(from, to string, readOnly bool) error {
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	var a, b unix.Stat_t
	if unix.Stat(from, &a) == nil && unix.Stat(to, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil // it is there
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if readOnly {
		return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return nil
}

func unbind(at string) error {
	if err := unix.Unmount(at, 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return err
	}
	if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func outcome(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Internal, err.Error())
}

// Notes what was asked, for the test to read.
func (d *driver) note(call, volume string, more map[string]string) {
	file, err := os.OpenFile(filepath.Join(d.data, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	line, _ := json.Marshal(map[string]any{"call": call, "volume": volume, "more": more})
	file.Write(append(line, '\n'))
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.note("stage", r.VolumeId, r.Secrets)
	from := filepath.Join(d.data, "volumes", r.VolumeId)
	if err := os.MkdirAll(from, 0o755); err != nil {
		return nil, outcome(err)
	}
	return &csi.NodeStageVolumeResponse{}, outcome(bind(from, r.StagingTargetPath, false))
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.note("unstage", r.VolumeId, nil)
	return &csi.NodeUnstageVolumeResponse{}, outcome(unbind(r.StagingTargetPath))
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.note("publish", r.VolumeId, r.VolumeContext)
	from := r.StagingTargetPath
	if from == "" { // an inline volume
		from = filepath.Join(d.data, "volumes", r.VolumeId)
		if err := os.MkdirAll(from, 0o777); err != nil {
			return nil, outcome(err)
		}
	}
	return &csi.NodePublishVolumeResponse{}, outcome(bind(from, r.TargetPath, r.Readonly))
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.note("unpublish", r.VolumeId, nil)
	return &csi.NodeUnpublishVolumeResponse{}, outcome(unbind(r.TargetPath))
}

func listen(path string) net.Listener {
	os.MkdirAll(filepath.Dir(path), 0o755)
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func main() {
	d := &driver{}
	root := flag.String("root", "/var/lib/kubelet", "the kubelet's folder")
	flag.StringVar(&d.name, "name", "folders.example.com", "of the driver")
	flag.StringVar(&d.node, "node", os.Getenv("NODE_NAME"), "of this machine")
	flag.StringVar(&d.data, "data", "/data", "where volumes are")
	flag.Parse()
	d.endpoint = filepath.Join(*root, "plugins", d.name, "csi.sock")
	node, registrar := grpc.NewServer(), grpc.NewServer()
	csi.RegisterNodeServer(node, d)
	registration.RegisterRegistrationServer(registrar, d)
	listener := listen(d.endpoint)
	go func() { log.Fatal(node.Serve(listener)) }()
	log.Fatal(registrar.Serve(listen(filepath.Join(*root, "plugins_registry", d.name+"-reg.sock"))))
}

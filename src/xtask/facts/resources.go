package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	aggregatoropenapi "k8s.io/kube-aggregator/pkg/generated/openapi"
	apiservicerest "k8s.io/kube-aggregator/pkg/registry/apiservice/rest"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	kubernetesopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	"k8s.io/kubernetes/pkg/kubeapiserver"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	admissionregistrationrest "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	apiserverinternalrest "k8s.io/kubernetes/pkg/registry/apiserverinternal/rest"
	appsrest "k8s.io/kubernetes/pkg/registry/apps/rest"
	authenticationrest "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorizationrest "k8s.io/kubernetes/pkg/registry/authorization/rest"
	autoscalingrest "k8s.io/kubernetes/pkg/registry/autoscaling/rest"
	batchrest "k8s.io/kubernetes/pkg/registry/batch/rest"
	certificatesrest "k8s.io/kubernetes/pkg/registry/certificates/rest"
	coordinationrest "k8s.io/kubernetes/pkg/registry/coordination/rest"
	corerest "k8s.io/kubernetes/pkg/registry/core/rest"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	eventsrest "k8s.io/kubernetes/pkg/registry/events/rest"
	flowcontrolrest "k8s.io/kubernetes/pkg/registry/flowcontrol/rest"
	lifecyclerest "k8s.io/kubernetes/pkg/registry/lifecycle/rest"
	networkingrest "k8s.io/kubernetes/pkg/registry/networking/rest"
	noderest "k8s.io/kubernetes/pkg/registry/node/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	resourcerest "k8s.io/kubernetes/pkg/registry/resource/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	storagerest "k8s.io/kubernetes/pkg/registry/storage/rest"
	svmrest "k8s.io/kubernetes/pkg/registry/storagemigration/rest"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// installed is upstream's API server with every group installed on a storage in memory.
type installed struct {
	server *genericapiserver.GenericAPIServer
	groups []*genericapiserver.APIGroupInfo
	served *serverstorage.ResourceConfig
	// The group of CustomResourceDefinitions, and how their objects would be kept.
	definitions   *genericapiserver.APIGroupInfo
	customOptions generic.RESTOptionsGetter
	policies      *policies
}

// emptyEtcd listens so that the port allocator finds a connection; every call on it fails.
func emptyEtcd() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() { check(grpc.NewServer().Serve(listener)) }()
	return listener.Addr().String()
}

type optionsGetter struct {
	inner options.StorageFactoryRestOptionsFactory
}

func (g optionsGetter) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := g.inner.GetRESTOptions(resource, example)
	o.Decorator = func(config *storagebackend.ConfigForResource, _ string, _ func(runtime.Object) (string, error), _ func() runtime.Object,
		_ func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		return newMemory(config.Codec, config.GroupResource), func() {}, nil
	}
	o.CountMetricPollPeriod = 0
	return o, err
}

// tokens makes discovery list the token subresource; no token is made.
type tokens struct{ serviceaccount.TokenGenerator }

func openAPIDefinitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := map[string]common.OpenAPIDefinition{}
	for _, get := range []common.GetOpenAPIDefinitions{
		kubernetesopenapi.GetOpenAPIDefinitions, apiextensionsopenapi.GetOpenAPIDefinitions, aggregatoropenapi.GetOpenAPIDefinitions,
	} {
		for name, definition := range get(ref) {
			all[name] = definition
		}
	}
	return all
}

func install(onlyServed bool) *installed {
	served := controlplane.DefaultAPIResourceConfigSource()
	served.EnableVersions(apiextensionsv1.SchemeGroupVersion, apiregistrationv1.SchemeGroupVersion)
	enabled := served
	if !onlyServed {
		enabled = serverstorage.NewResourceConfig()
		for _, scheme := range schemes {
			enabled.EnableVersions(scheme.PrioritizedVersionsAllGroups()...)
		}
	}

	etcd := options.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", nil))
	etcd.StorageConfig.Transport.ServerList = []string{"http://" + emptyEtcd()}
	etcd.DefaultStorageMediaType = "application/vnd.kubernetes.protobuf"
	effective := compatibility.DefaultBuildEffectiveVersion()
	factoryOf := func(c *kubeapiserver.StorageFactoryConfig) (*serverstorage.DefaultStorageFactory, optionsGetter) {
		c.APIResourceConfig = enabled
		f, err := c.Complete(etcd).New()
		check(err)
		return f, optionsGetter{options.StorageFactoryRestOptionsFactory{Options: *etcd, StorageFactory: f}}
	}
	storageFactory, getter := factoryOf(kubeapiserver.NewStorageFactoryConfigEffectiveVersion(effective))
	getterOf := func(scheme *runtime.Scheme, codecs serializer.CodecFactory) optionsGetter {
		_, getter := factoryOf(&kubeapiserver.StorageFactoryConfig{
			Serializer: codecs, DefaultResourceEncoding: serverstorage.NewDefaultResourceEncodingConfigForEffectiveVersion(scheme, effective),
		})
		return getter
	}

	itself := &restclient.Config{Host: "http://127.0.0.1:1", Transport: loopback{}}
	client, err := kubernetes.NewForConfig(itself)
	check(err)
	informerFactory := informers.NewSharedInformerFactory(client, 0)
	allow := authorizerfactory.NewAlwaysAllowAuthorizer()

	config := genericapiserver.NewConfig(legacyscheme.Codecs)
	config.LoopbackClientConfig = itself
	config.Authorization.Authorizer = allow
	config.ExternalAddress = "127.0.0.1:6443"
	config.EffectiveVersion = effective
	config.RESTOptionsGetter = getter
	config.MergedResourceConfig = enabled
	policies := &policies{}
	config.AdmissionControl = policies
	namer := openapinamer.NewDefinitionNamer(schemes...)
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(openAPIDefinitions)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	config.OpenAPIConfig.Info.Title = "Kubernetes"
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	config.OpenAPIV3Config.Info.Title = "Kubernetes"
	server, err := config.Complete(informerFactory).New("facts", genericapiserver.NewEmptyDelegate())
	check(err)

	_, serviceRange, err := net.ParseCIDR("10.0.0.0/24")
	check(err)
	legacy, err := corerest.New(corerest.Config{
		GenericConfig: corerest.GenericConfig{
			StorageFactory: storageFactory, EventTTL: time.Hour, LoopbackClientConfig: itself, Informers: informerFactory,
			ServiceAccountIssuer: tokens{}, APIAudiences: authenticator.Audiences{"api"},
		},
		Proxy: corerest.ProxyConfig{Transport: http.DefaultTransport, KubeletClientConfig: kubeletclient.KubeletClientConfig{Port: 10250}},
		Services: corerest.ServicesConfig{
			ClusterIPRange: *serviceRange, NodePortRange: utilnet.PortRange{Base: 30000, Size: 2768}, IPRepairInterval: time.Hour,
		},
		Authorizer: allow,
	}, allow)
	check(err)

	// The order of pkg/controlplane/instance.go StorageProviders.
	providers := []controlplaneapiserver.RESTStorageProvider{
		legacy,
		apiserverinternalrest.StorageProvider{},
		authenticationrest.RESTStorageProvider{Authenticator: authenticator.RequestFunc(nil), APIAudiences: authenticator.Audiences{"api"}},
		authorizationrest.RESTStorageProvider{Authorizer: allow, RuleResolver: nil},
		autoscalingrest.RESTStorageProvider{},
		batchrest.RESTStorageProvider{},
		certificatesrest.RESTStorageProvider{Authorizer: allow},
		coordinationrest.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		lifecyclerest.RESTStorageProvider{},
		networkingrest.RESTStorageProvider{},
		noderest.RESTStorageProvider{},
		policyrest.RESTStorageProvider{},
		rbacrest.RESTStorageProvider{Authorizer: allow},
		schedulingrest.RESTStorageProvider{},
		storagerest.RESTStorageProvider{},
		svmrest.RESTStorageProvider{},
		flowcontrolrest.RESTStorageProvider{InformerFactory: informerFactory},
		appsrest.StorageProvider{},
		admissionregistrationrest.RESTStorageProvider{Authorizer: allow, DiscoveryClient: client.Discovery()},
		eventsrest.RESTStorageProvider{TTL: time.Hour},
		resourcerest.RESTStorageProvider{NamespaceClient: client.CoreV1().Namespaces(), Authorizer: allow},
	}
	untyped := etcd.StorageConfig
	untyped.Codec = runtime.NewCodec(unstructured.UnstructuredJSONScheme, unstructured.UnstructuredJSONScheme)
	custom := options.StorageFactoryRestOptionsFactory{Options: *etcd, StorageFactory: &options.SimpleStorageFactory{StorageConfig: untyped}}
	result := &installed{server: server, served: served, policies: policies, customOptions: &custom}
	for _, provider := range providers {
		info, err := provider.NewRESTStorage(enabled, getter)
		check(err)
		if len(info.VersionedResourcesStorageMap) > 0 {
			result.groups = append(result.groups, &info)
		}
	}
	result.definitions = customResourceDefinitions(getterOf(apiextensionsserver.Scheme, apiextensionsserver.Codecs))
	result.groups = append(result.groups, result.definitions)
	services := apiservicerest.NewRESTStorage(enabled, getterOf(aggregatorscheme.Scheme, aggregatorscheme.Codecs), false)
	result.groups = append(result.groups, &services)
	for _, info := range result.groups {
		if info.PrioritizedVersions[0].Group == "" {
			check(server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, info))
		} else {
			check(server.InstallAPIGroup(info))
		}
	}
	return result
}

func customResourceDefinitions(getter generic.RESTOptionsGetter) *genericapiserver.APIGroupInfo {
	info := genericapiserver.NewDefaultAPIGroupInfo(apiextensions.GroupName, apiextensionsserver.Scheme, metav1.ParameterCodec, apiextensionsserver.Codecs)
	definitions, err := customresourcedefinition.NewREST(apiextensionsserver.Scheme, getter)
	check(err)
	info.VersionedResourcesStorageMap["v1"] = map[string]rest.Storage{
		"customresourcedefinitions":        definitions,
		"customresourcedefinitions/status": customresourcedefinition.NewStatusREST(apiextensionsserver.Scheme, definitions),
	}
	return &info
}

func (s *installed) get(path string) []byte {
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Header.Set("Accept", "application/json")
	s.server.Handler.Director.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusOK {
		check(fmt.Errorf("GET %s: %d %s", path, recorder.Code, recorder.Body))
	}
	return recorder.Body.Bytes()
}

// groupOrder is that of discovery: cmd/kube-apiserver/app/aggregator.go apiVersionPriorities, which has to be repeated for the groups
// that pkg/controlplane/apiserver does not name. Groups of equal priority stand by name.
func groupOrder() []string {
	priority := map[string]int32{
		"": 18000, "apps": 17800, "autoscaling": 17500, "batch": 17400, "networking.k8s.io": 17200, "policy": 17100, "storage.k8s.io": 16800,
		"scheduling.k8s.io": 16600, "node.k8s.io": 16300, "resource.k8s.io": 16200, "lifecycle.k8s.io": 15700,
		// The aggregator lists itself first.
		"apiregistration.k8s.io": 20000,
	}
	for gv, p := range controlplaneapiserver.DefaultGenericAPIServicePriorities() {
		if _, known := priority[gv.Group]; !known {
			priority[gv.Group] = p.Group
		}
	}
	delete(priority, "")
	names := keys(priority)
	sort.SliceStable(names, func(i, j int) bool { return priority[names[i]] > priority[names[j]] })
	return append([]string{""}, names...)
}

func path(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

func storageHash(group, version, kind string) string {
	sum := sha256.Sum256([]byte(group + "/" + version + "/" + kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

func (s *installed) resources() []byte {
	var out strings.Builder
	line := func(columns ...string) { out.WriteString(strings.Join(columns, "\t") + "\n") }
	infos := map[string]*genericapiserver.APIGroupInfo{}
	for _, info := range s.groups {
		infos[info.PrioritizedVersions[0].Group] = info
	}
	for _, group := range groupOrder() {
		info := infos[group]
		if info == nil {
			continue
		}
		for _, gv := range info.PrioritizedVersions {
			stores := info.VersionedResourcesStorageMap[gv.Version]
			if len(stores) == 0 {
				continue
			}
			s.resourcesOf(info, gv, stores, line)
		}
	}
	var kinds []string
	seen := map[string]bool{}
	for _, scheme := range schemes {
		for _, gv := range scheme.PrioritizedVersionsAllGroups() {
			for kind, t := range scheme.KnownTypes(gv) {
				text := strings.Join([]string{"kind", gv.Group, gv.Version, kind, typeName(t)}, "\t")
				if !seen[text] {
					seen[text] = true
					kinds = append(kinds, text)
				}
			}
		}
	}
	for gv, types := range answered {
		for _, kind := range types {
			t := reflect.TypeOf(kind)
			kinds = append(kinds, strings.Join([]string{"kind", gv.Group, gv.Version, t.Name(), typeName(t)}, "\t"))
		}
	}
	sort.Strings(kinds)
	out.WriteString(strings.Join(kinds, "\n") + "\n")
	return []byte(out.String())
}

func servedWord(served bool) string {
	if served {
		return "served"
	}
	return "known"
}

func (s *installed) resourcesOf(info *genericapiserver.APIGroupInfo, gv schema.GroupVersion, stores map[string]rest.Storage, line func(...string)) {
	var discovered metav1.APIResourceList
	check(json.Unmarshal(s.get(path(gv)), &discovered))
	byName := map[string]metav1.APIResource{}
	for _, resource := range discovered.APIResources {
		byName[resource.Name] = resource
	}
	line("version", gv.Group, gv.Version, servedWord(s.served.AnyResourceForGroupEnabled(gv.Group) && s.versionServed(gv, stores)))
	for _, name := range keys(stores) {
		if strings.Contains(name, "/") {
			continue
		}
		resource := byName[name]
		storageVersion := gv.Version
		for _, known := range info.Scheme.PrioritizedVersionsForGroup(gv.Group) {
			if resource.StorageVersionHash == storageHash(gv.Group, known.Version, resource.Kind) {
				storageVersion = known.Version
			}
		}
		scope := "cluster"
		if resource.Namespaced {
			scope = "namespaced"
		}
		listKind := ""
		if lister, ok := stores[name].(rest.Lister); ok {
			gvks, _, err := info.Scheme.ObjectKinds(lister.NewList())
			check(err)
			listKind = gvks[0].Kind
		}
		line("resource", gv.Group, gv.Version, name, resource.Kind, listKind, resource.SingularName, scope,
			servedWord(s.served.ResourceEnabled(gv.WithResource(name))), strings.Join(resource.ShortNames, ","),
			strings.Join(resource.Categories, ","), strings.Join(resource.Verbs, ","), storageVersion, resource.StorageVersionHash)
		for _, sub := range keys(stores) {
			owner, subName, found := strings.Cut(sub, "/")
			if !found || owner != name {
				continue
			}
			r := byName[sub]
			group, version := gv.Group, gv.Version
			if r.Version != "" {
				group, version = r.Group, r.Version
			}
			line("sub", gv.Group, gv.Version, name, subName, group, version, r.Kind, strings.Join(r.Verbs, ","))
		}
	}
}

func (s *installed) versionServed(gv schema.GroupVersion, stores map[string]rest.Storage) bool {
	for name := range stores {
		if s.served.ResourceEnabled(gv.WithResource(strings.Split(name, "/")[0])) {
			return true
		}
	}
	return false
}

// columns prints the header of each resource's table; versions of a resource share it.
func (s *installed) columns() []byte {
	var lines []string
	for _, info := range s.groups {
		for _, gv := range info.PrioritizedVersions {
			for name, store := range info.VersionedResourcesStorageMap[gv.Version] {
				convertor, ok := store.(rest.TableConvertor)
				lister, isLister := store.(rest.Lister)
				if !ok || !isLister || strings.Contains(name, "/") {
					continue
				}
				list := lister.NewList()
				check(meta.SetList(list, nil))
				table, err := convertor.ConvertToTable(context.Background(), list, nil)
				check(err)
				for i, c := range table.ColumnDefinitions {
					lines = append(lines, strings.Join([]string{
						gv.Group, gv.Version, name, fmt.Sprintf("%02d", i), c.Name, c.Type, c.Format, fmt.Sprint(c.Priority),
					}, "\t"))
				}
			}
		}
	}
	return sorted(lines)
}

// writeOpenAPI writes the documents that upstream would serve, for comparison with ours.
func (s *installed) writeOpenAPI(dir string) {
	s.server.PrepareRun()
	save := func(name string, data []byte) { check(os.WriteFile(filepath.Join(dir, name), data, 0o644)) }
	save("v2.json", s.get("/openapi/v2"))
	index := s.get("/openapi/v3")
	save("v3.json", index)
	var parsed struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	check(json.Unmarshal(index, &parsed))
	for name, entry := range parsed.Paths {
		save("v3-"+strings.ReplaceAll(name, "/", "-")+".json", s.get(entry.ServerRelativeURL))
	}
	for _, name := range []string{"/api", "/apis"} {
		save("discovery"+strings.ReplaceAll(name, "/", "-")+".json", s.get(name))
	}
}

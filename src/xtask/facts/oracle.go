package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"unsafe"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	services "k8s.io/kubernetes/pkg/registry/core/service/storage"
)

// question is one HTTP request, a line of JSON; answer is what comes back for it. tests/differential speaks this with every subject.
type question struct {
	Method  string
	Path    string
	Headers map[string]string
	Body    string
}

type answer struct {
	Code     int      `json:"code"`
	Warnings []string `json:"warnings,omitempty"`
	Body     string   `json:"body"`
}

// answerQuestions is upstream's API server without etcd, authorization and any admission but policies: one answer on `out` for each question
// on `in`.
func (s *installed) answerQuestions(in io.Reader, out io.Writer) {
	s.withAllocation()
	capabilities.Setup(true, 0)
	resolver := genericapiserver.NewRequestInfoResolver(&genericapiserver.Config{
		LegacyAPIGroupPrefixes: sets.NewString(genericapiserver.DefaultLegacyAPIPrefix),
	})
	admin := &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters", "system:authenticated"}}
	allow := authorizerfactory.NewAlwaysAllowAuthorizer()
	s.policies.start(s, allow)
	custom := s.serveCustom(s.customOptions, allow)
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Patches are written to an audit log that may be off, but must be there.
		ctx := audit.WithAuditContext(request.WithUser(r.Context(), admin))
		if asked, _ := request.RequestInfoFrom(ctx); asked.IsResourceRequest {
			custom.handler.ServeHTTP(w, r.WithContext(ctx))
		} else {
			s.server.Handler.Director.ServeHTTP(w, r.WithContext(ctx))
		}
	}))
	handler = filters.WithRequestInfo(filters.WithWarningRecorder(handler), resolver)
	lines := bufio.NewReaderSize(in, 1<<20)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		check(err)
		var q question
		check(json.Unmarshal(line, &q))
		r := httptest.NewRequest(q.Method, q.Path, strings.NewReader(q.Body))
		for name, value := range q.Headers {
			r.Header.Set(name, value)
		}
		answer := ask(handler, r)
		if asked, err := resolver.NewRequestInfo(r); err == nil && answer.Code != 0 {
			custom.follow(asked, r, answer)
			s.policies.follow(asked, r, answer)
		}
		check(encoder.Encode(answer))
	}
}

// loopback answers what strategies ask the server itself: of the namespace that all objects are in.
type loopback struct{}

func (loopback) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/api/v1/namespaces/default" {
		return nil, fmt.Errorf("nobody answers %s", r.URL.Path)
	}
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Content-Type", "application/json")
	io.WriteString(recorder, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}`)
	return recorder.Result(), nil
}

// ask answers with the code 0 where upstream panics.
func ask(handler http.Handler, r *http.Request) (a answer) {
	defer func() {
		if why := recover(); why != nil {
			fmt.Fprintf(os.Stderr, "%s %s: %v\n%s", r.Method, r.URL, why, debug.Stack())
			a = answer{Body: fmt.Sprint(why)}
		}
	}()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return answer{recorder.Code, recorder.Header().Values("Warning"), recorder.Body.String()}
}

// withAllocation has Services draw addresses and ports from memory: those that give them out ask etcd and a running server.
func (s *installed) withAllocation() {
	_, addresses, err := net.ParseCIDR("10.43.0.0/16")
	check(err)
	fromAddresses, err := ipallocator.NewInMemory(addresses)
	check(err)
	fromPorts, err := portallocator.NewInMemory(utilnet.PortRange{Base: 30000, Size: 2768})
	check(err)
	for _, info := range s.groups {
		rest, ok := info.VersionedResourcesStorageMap["v1"]["services"].(*services.REST)
		if !ok {
			continue
		}
		given := reflect.ValueOf(rest).Elem().FieldByName("alloc")
		set := func(name string, value any) {
			field := given.FieldByName(name)
			reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(value))
		}
		set("serviceIPAllocatorsByFamily", map[api.IPFamily]ipallocator.Interface{api.IPv4Protocol: fromAddresses})
		set("serviceNodePorts", fromPorts)
	}
}

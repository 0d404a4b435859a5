package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// policed is the one namespace in which policies count: other tests make some, too.
const policed = "differential-policy"

// policies is upstream's admission by policies, the only one that the oracle has. Until it is started it admits everything.
//
// Policies, their parameters and namespaces come to it by informers, so there is a second place that keeps them: the client's tracker.
type policies struct {
	mutating   *mutating.Plugin
	validating *validating.Plugin
	client     *fake.Clientset
}

func (p *policies) Handles(admission.Operation) bool { return p.validating != nil }

// Admit asks once more where a policy wants that, as the handler around upstream's chain does (k8s.io/apiserver/pkg/admission/reinvocation.go).
func (p *policies) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if a.GetNamespace() != policed || !p.mutating.Handles(a.GetOperation()) {
		return nil
	}
	if err := p.mutating.Admit(ctx, a, o); err != nil {
		return err
	}
	again := a.GetReinvocationContext()
	if !again.ShouldReinvoke() {
		return nil
	}
	again.SetIsReinvoke()
	return p.mutating.Admit(ctx, a, o)
}

func (p *policies) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if a.GetNamespace() != policed {
		return nil
	}
	return p.validating.Validate(ctx, a, o)
}

func (p *policies) start(s *installed, authorizer authorizer.Authorizer) {
	generic.SetPolicyRefreshIntervalForTests(time.Millisecond)
	p.client = fake.NewSimpleClientset()
	client := documented{p.client, described{p.client.Discovery(), s.documents()}}
	factory := informers.NewSharedInformerFactory(client, 0)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	forever := make(chan struct{})
	initializer := initializer.New(client, dynamicfake.NewSimpleDynamicClient(scheme.Scheme), factory, authorizer,
		utilfeature.DefaultFeatureGate, compatibility.DefaultBuildEffectiveVersion(), forever, mapper)
	mutates, err := mutating.NewPlugin(nil)
	check(err)
	validates, err := validating.NewPlugin(nil)
	check(err)
	for _, plugin := range []admission.Interface{mutates, validates} {
		initializer.Initialize(plugin)
		check(admission.ValidateInitialization(plugin))
	}
	factory.Start(forever)
	factory.WaitForCacheSync(forever)
	p.mutating, p.validating = mutates, validates
}

// follow tells the informers what was asked for and done.
func (p *policies) follow(asked *request.RequestInfo, r *http.Request, a answer) {
	if a.Code >= 300 || r.URL.Query().Has("dryRun") || asked.Subresource != "" {
		return
	}
	resource := schema.GroupVersionResource{Group: asked.APIGroup, Version: asked.APIVersion, Resource: asked.Resource}
	switch {
	case resource.Group == admissionregistrationv1.GroupName:
	case resource.Group == "" && (resource.Resource == "configmaps" || resource.Resource == "namespaces"):
	default:
		return
	}
	namespace := asked.Namespace
	if resource.Resource == "namespaces" {
		namespace = ""
	}
	if asked.Verb == "delete" {
		// Not there: made while nobody followed.
		_ = p.client.Tracker().Delete(resource, namespace, asked.Name)
		return
	}
	if asked.Verb != "create" && asked.Verb != "update" && asked.Verb != "patch" {
		return
	}
	object, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode([]byte(a.Body), nil, nil)
	check(err)
	if p.client.Tracker().Update(resource, object, namespace) != nil {
		check(p.client.Tracker().Add(object))
	}
}

// documented is a client that is told the types of objects without a server.
type documented struct {
	kubernetes.Interface
	discovery described
}

// IsWatchListSemanticsUnSupported says of the tracker behind it that a watch of it does not begin with a list.
func (d documented) IsWatchListSemanticsUnSupported() bool    { return true }
func (d documented) Discovery() discovery.DiscoveryInterfaces { return d.discovery }

type described struct {
	discovery.DiscoveryInterfaces
	paths map[string]openapi.GroupVersion
}

func (d described) OpenAPIV3() openapi.Client                       { return d }
func (d described) Paths() (map[string]openapi.GroupVersion, error) { return d.paths, nil }

// document is as much of an OpenAPI document as types of objects need.
type document struct {
	path    string
	content *spec3.OpenAPI
}

func (d document) Schema(string) ([]byte, error) { return json.Marshal(d.content) }
func (d document) ServerRelativeURL() string     { return d.path }

func (s *installed) documents() map[string]openapi.GroupVersion {
	paths := map[string]openapi.GroupVersion{}
	for _, info := range s.groups {
		content := &spec3.OpenAPI{Components: &spec3.Components{Schemas: info.StaticOpenAPISpec}}
		for _, gv := range info.PrioritizedVersions {
			path := "apis/" + gv.String()
			if gv.Group == "" {
				path = "api/" + gv.Version
			}
			paths[path] = document{path, content}
		}
	}
	return paths
}

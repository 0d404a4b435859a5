package main

import (
	"fmt"
	"net/http"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apimachinerytypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
)

// custom serves the objects of CustomResourceDefinitions as upstream's extension server does. Its controllers are not there: a definition
// is served by the names that it asks for from when it is stored, and its status stays empty.
type custom struct {
	handler http.Handler
	// Never started; what it knows is put into it.
	informer cache.SharedIndexInformer
	// Of changes to definitions: each gives one another uid, which is how the handler knows that it has to look again.
	changes int
	// By resource, so that objects outlive a change of their definition.
	stored map[schema.GroupResource]map[string]entry
	inner  generic.RESTOptionsGetter
}

func (s *installed) serveCustom(inner generic.RESTOptionsGetter, authorizer authorizer.UnconditionalAuthorizer) *custom {
	c := &custom{
		informer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &apiextensionsv1.CustomResourceDefinition{}, 0, cache.Indexers{}),
		stored:   map[schema.GroupResource]map[string]entry{},
		inner:    inner,
	}
	handler, err := apiextensionsserver.NewCustomResourceDefinitionHandler(nil, nil, c, s.server.Handler.Director, c, s.policies, nil, nil, nil, 1,
		authorizer, time.Minute, time.Minute, s.definitions.StaticOpenAPISpec, 3<<20)
	check(err)
	c.handler = handler
	return c
}

func (c *custom) Informer() cache.SharedIndexInformer { return c.informer }
func (c *custom) Lister() listers.CustomResourceDefinitionLister {
	return listers.NewCustomResourceDefinitionLister(c.informer.GetIndexer())
}

func (c *custom) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := c.inner.GetRESTOptions(resource, example)
	o.CountMetricPollPeriod = 0
	if c.stored[resource] == nil {
		c.stored[resource] = map[string]entry{}
	}
	o.Decorator = func(config *storagebackend.ConfigForResource, _ string, _ func(runtime.Object) (string, error), _ func() runtime.Object,
		_ func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		m := newMemory(config.Codec, resource)
		m.stored = c.stored[resource]
		return m, func() {}, nil
	}
	return o, err
}

// follow tells the handler of a definition what was asked for and done.
func (c *custom) follow(asked *request.RequestInfo, r *http.Request, a answer) {
	if asked.APIGroup != apiextensionsv1.GroupName || a.Code >= 300 || r.URL.Query().Has("dryRun") || asked.Subresource != "" {
		return
	}
	switch asked.Verb {
	case "create", "update", "patch":
		object, _, err := apiextensionsserver.Codecs.UniversalDeserializer().Decode([]byte(a.Body), nil, nil)
		check(err)
		definition, ok := object.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			return
		}
		c.changes++
		definition.UID = apimachinerytypes.UID(fmt.Sprintf("%s-%d", definition.UID, c.changes))
		definition.Status.AcceptedNames = definition.Spec.Names
		for _, name := range []apiextensionsv1.CustomResourceDefinitionConditionType{apiextensionsv1.NamesAccepted, apiextensionsv1.Established} {
			// Long ago: the handler lets creations wait that come at once.
			condition := apiextensionsv1.CustomResourceDefinitionCondition{Type: name, Status: apiextensionsv1.ConditionTrue}
			definition.Status.Conditions = append(definition.Status.Conditions, condition)
		}
		check(c.informer.GetIndexer().Update(definition))
	case "delete":
		old, found, err := c.informer.GetIndexer().GetByKey(asked.Name)
		check(err)
		if found {
			spec := old.(*apiextensionsv1.CustomResourceDefinition).Spec
			delete(c.stored, schema.GroupResource{Group: spec.Group, Resource: spec.Names.Plural})
			check(c.informer.GetIndexer().Delete(old))
		}
	}
}

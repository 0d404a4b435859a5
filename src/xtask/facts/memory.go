package main

import (
	"context"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// memory stands for etcd: the objects of one resource, encoded as they would be stored. For one caller at a time; nothing can be watched.
type memory struct {
	storage.Interface
	codec    runtime.Codec
	resource schema.GroupResource
	stored   map[string]entry
}

type entry struct {
	data     []byte
	revision uint64
}

// revision is counted over all resources, as etcd does.
var revision uint64 = 1

func newMemory(codec runtime.Codec, resource schema.GroupResource) *memory {
	return &memory{codec: codec, resource: resource, stored: map[string]entry{}}
}

func (m *memory) Versioner() storage.Versioner { return storage.APIObjectVersioner{} }
func (m *memory) ReadinessCheck() error        { return nil }
func (m *memory) CompactRevision() int64       { return 0 }

func (m *memory) EnableResourceSizeEstimation(storage.KeysFunc) error       { return nil }
func (m *memory) GetCurrentResourceVersion(context.Context) (uint64, error) { return revision, nil }
func (m *memory) RequestWatchProgress(context.Context) error                { return nil }
func (m *memory) Watch(context.Context, string, storage.ListOptions) (watch.Interface, error) {
	return nil, fmt.Errorf("nothing can be watched in memory")
}

func (m *memory) put(key string, object, out runtime.Object) error {
	if err := m.Versioner().PrepareObjectForStorage(object); err != nil {
		return err
	}
	data, err := runtime.Encode(m.codec, object)
	if err != nil {
		return err
	}
	revision++
	m.stored[key] = entry{data, revision}
	return m.decode(m.stored[key], out)
}

func (m *memory) decode(e entry, out runtime.Object) error {
	if out == nil {
		return nil
	}
	if _, _, err := m.codec.Decode(e.data, nil, out); err != nil {
		return err
	}
	return m.Versioner().UpdateObject(out, e.revision)
}

func (m *memory) Create(_ context.Context, key string, object, out runtime.Object, _ uint64) error {
	if _, found := m.stored[key]; found {
		return storage.NewKeyExistsError(key, 0)
	}
	return m.put(key, object, out)
}

func (m *memory) Get(_ context.Context, key string, options storage.GetOptions, out runtime.Object) error {
	e, found := m.stored[key]
	if !found {
		if options.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(key, 0)
	}
	return m.decode(e, out)
}

func (m *memory) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, _ storage.DeleteOptions) error {
	if err := m.Get(ctx, key, storage.GetOptions{}, out); err != nil {
		return err
	}
	if err := preconditions.Check(key, out); err != nil {
		return err
	}
	if err := validate(ctx, out); err != nil {
		return err
	}
	delete(m.stored, key)
	return nil
}

func (m *memory) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, _ runtime.Object) error {
	value, err := conversion.EnforcePtr(out)
	if err != nil {
		return err
	}
	current := empty(value.Type(), out)
	if err := m.Get(ctx, key, storage.GetOptions{IgnoreNotFound: ignoreNotFound}, current); err != nil {
		return err
	}
	if err := preconditions.Check(key, current); err != nil {
		return err
	}
	updated, _, err := tryUpdate(current, storage.ResponseMeta{ResourceVersion: m.stored[key].revision})
	if err != nil {
		return err
	}
	return m.put(key, updated, out)
}

// empty is a new object to decode into; one without a type of its own is told the version of `like` (etcd3 getNewItemFunc).
func empty(t reflect.Type, like runtime.Object) runtime.Object {
	object := reflect.New(t).Interface().(runtime.Object)
	if untyped, is := object.(*unstructured.Unstructured); is {
		untyped.Object = map[string]any{"apiVersion": like.GetObjectKind().GroupVersionKind().GroupVersion().String()}
	}
	return object
}

func (m *memory) GetList(_ context.Context, key string, options storage.ListOptions, list runtime.Object) error {
	pointer, err := meta.GetItemsPtr(list)
	if err != nil {
		return err
	}
	items, err := conversion.EnforcePtr(pointer)
	if err != nil {
		return err
	}
	var keys []string
	for stored := range m.stored {
		if stored == key || strings.HasPrefix(stored, strings.TrimSuffix(key, "/")+"/") {
			keys = append(keys, stored)
		}
	}
	sort.Strings(keys)
	for _, stored := range keys {
		object := empty(items.Type().Elem(), list)
		if err := m.decode(m.stored[stored], object); err != nil {
			return err
		}
		matches, err := options.Predicate.Matches(object)
		if err != nil {
			return err
		}
		if matches {
			items.Set(reflect.Append(items, reflect.ValueOf(object).Elem()))
		}
	}
	return m.Versioner().UpdateList(list, revision, "", nil)
}

package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	apiextensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	aggregatoropenapi "k8s.io/kube-aggregator/pkg/generated/openapi"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	kubernetesopenapi "k8s.io/kubernetes/pkg/generated/openapi"
)

// definitions by OpenAPI name: io.k8s.api.core.v1.Pod.
func definitions() map[string]common.OpenAPIDefinition {
	all := map[string]common.OpenAPIDefinition{}
	ref := func(path string) spec.Ref { return spec.MustCreateRef("#/" + path) }
	for _, get := range []common.GetOpenAPIDefinitions{
		kubernetesopenapi.GetOpenAPIDefinitions, apiextensionsopenapi.GetOpenAPIDefinitions, aggregatoropenapi.GetOpenAPIDefinitions,
	} {
		for path, definition := range get(ref) {
			all[openAPIName(path)] = definition
		}
	}
	return all
}

// openAPIName turns k8s.io/api/core/v1.Pod into io.k8s.api.core.v1.Pod; names that are in that form already stay.
func openAPIName(path string) string {
	host, rest, found := strings.Cut(path, "/")
	if !found {
		return path
	}
	labels := strings.Split(host, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + strings.ReplaceAll(rest, "/", ".")
}

func typeName(t reflect.Type) string { return openAPIName(t.PkgPath() + "." + t.Name()) }

type walker struct {
	seen        map[reflect.Type]bool
	lines       map[string][]string // by type name: the header, then its fields
	definitions map[string]common.OpenAPIDefinition
}

func types() []byte {
	w := walker{seen: map[reflect.Type]bool{}, lines: map[string][]string{}, definitions: definitions()}
	for _, scheme := range schemes {
		for _, gv := range scheme.PrioritizedVersionsAllGroups() {
			for _, t := range scheme.KnownTypes(gv) {
				w.walk(t)
			}
		}
	}
	for _, kinds := range answered {
		for _, kind := range kinds {
			w.walk(reflect.TypeOf(kind))
		}
	}
	var names []string
	for name := range w.lines {
		names = append(names, name)
	}
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		for _, line := range w.lines[name] {
			out.WriteString(line + "\n")
		}
	}
	return []byte(out.String())
}

func (w *walker) walk(t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || w.seen[t] || t.Name() == "" {
		return
	}
	w.seen[t] = true
	name := typeName(t)
	definition := w.definitions[name]
	header := "type\t" + name + "\t"
	if definition.Schema.Extensions["x-kubernetes-map-type"] == "atomic" {
		header += "atomic"
	}
	var fields []string
	w.fields(t, definition, "", "", &fields)
	sort.Strings(fields)
	// Sorting whole lines sorts by name too, a tab being smaller than any letter.
	w.lines[name] = append([]string{header}, fields...)
}

func (w *walker) fields(t reflect.Type, definition common.OpenAPIDefinition, embedded, proto string, out *[]string) {
	required := map[string]bool{}
	for _, name := range definition.Schema.Required {
		required[name] = true
	}
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag, hasJSON := f.Tag.Lookup("json")
		parts := strings.Split(tag, ",")
		name, options := parts[0], parts[1:]
		number := wire(f.Tag.Get("protobuf"))
		if proto != "" && number != "" {
			number = proto + "/" + number
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" && f.Anonymous && deref(f.Type).Kind() == reflect.Struct {
			// encoding/json names the embedding fields only, joined; one level is all the API has.
			w.fields(deref(f.Type), definition, f.Name, number, out)
			continue
		}
		if !hasJSON || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		w.walk(f.Type)
		flags := ""
		if f.Type.Kind() == reflect.Pointer {
			flags += "p"
		}
		for _, option := range options {
			switch option {
			case "omitempty":
				flags += "o"
			case "omitzero":
				flags += "z"
			}
		}
		if required[name] {
			flags += "r"
		}
		property := definition.Schema.Properties[name]
		defaultText := ""
		if property.Default != nil {
			if isZero(property.Default) {
				flags += "d"
			} else {
				defaultText = compact(property.Default)
			}
		}
		items := property.Items
		if items != nil && items.Schema != nil && items.Schema.Default != nil {
			flags += "l"
		}
		if a := property.AdditionalProperties; a != nil && a.Schema != nil && a.Schema.Default != nil {
			flags += "l"
		}
		kind, goType := kindOf(deref(f.Type)), deref(f.Type).String()
		if goType == derivedGoType(kind) {
			goType = ""
		}
		var enum []string
		for _, value := range property.Enum {
			enum = append(enum, fmt.Sprint(value))
		}
		if items != nil && items.Schema != nil {
			for _, value := range items.Schema.Enum {
				enum = append(enum, fmt.Sprint(value))
			}
		}
		columns := []string{
			"field", name, kind, goType, flags, embedded, number, f.Tag.Get("patchStrategy"), f.Tag.Get("patchMergeKey"),
			extension(property, "x-kubernetes-list-type"), extension(property, "x-kubernetes-list-map-keys"),
			extension(property, "x-kubernetes-map-type"), defaultText, strings.Join(enum, ","), more(property),
		}
		*out = append(*out, strings.TrimRight(strings.Join(columns, "\t"), "\t"))
	}
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// more holds what only a few properties say: limits and patterns.
func more(s spec.Schema) string {
	out := map[string]any{}
	if s.Minimum != nil {
		out["minimum"] = *s.Minimum
	}
	if s.Maximum != nil {
		out["maximum"] = *s.Maximum
	}
	if s.MinLength != nil {
		out["minLength"] = *s.MinLength
	}
	if s.MaxLength != nil {
		out["maxLength"] = *s.MaxLength
	}
	if s.MinItems != nil {
		out["minItems"] = *s.MinItems
	}
	if s.MaxItems != nil {
		out["maxItems"] = *s.MaxItems
	}
	if s.Pattern != "" {
		out["pattern"] = s.Pattern
	}
	if v, ok := s.Extensions["x-kubernetes-validations"]; ok {
		out["x-kubernetes-validations"] = v
	}
	if len(out) == 0 {
		return ""
	}
	return compact(out)
}

func extension(s spec.Schema, name string) string {
	switch value := s.Extensions[name].(type) {
	case nil:
		return ""
	case []any:
		var words []string
		for _, word := range value {
			words = append(words, fmt.Sprint(word))
		}
		return strings.Join(words, ",")
	default:
		return fmt.Sprint(value)
	}
}

func isZero(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		return len(value) == 0
	case []any:
		return len(value) == 0
	}
	return reflect.ValueOf(value).IsZero()
}

// wire is "number:wire" of a struct tag.
func wire(tag string) string {
	parts := strings.Split(tag, ",")
	if len(parts) < 2 {
		return ""
	}
	return parts[1] + ":" + parts[0]
}

func kindOf(t reflect.Type) string {
	t = deref(t)
	switch t.Kind() {
	case reflect.Struct:
		return typeName(t)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + kindOf(t.Elem())
	case reflect.Map:
		return "{}" + kindOf(t.Elem())
	case reflect.Interface:
		return "any"
	default:
		return t.Kind().String()
	}
}

// derivedGoType is what the reader of the table assumes where the column is empty.
func derivedGoType(kind string) string {
	switch {
	case strings.HasPrefix(kind, "[]"):
		return "[]" + derivedGoType(kind[2:])
	case strings.HasPrefix(kind, "{}"):
		return "map[string]" + derivedGoType(kind[2:])
	case kind == "bytes":
		return "[]uint8"
	case kind == "any":
		return "interface {}"
	}
	parts := strings.Split(kind, ".")
	if len(parts) > 2 {
		parts = parts[len(parts)-2:]
	}
	return strings.Join(parts, ".")
}

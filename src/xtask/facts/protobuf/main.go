// protobuf makes objects of every kind at random and checks rk's codec on them: `cargo run -p api --example protobuf_oracle` drives it.
//
// For each object it writes to standard output the object as JSON and as protobuf, each behind its length in four bytes, and reads
// from standard input what rk makes of the JSON in protobuf, in the same way. Complaints go to standard error; the exit code says
// whether there were any. Whether rk reads the protobuf right is checked there.
//
// usage: protobuf OBJECTS-OF-EACH-KIND SEED
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"reflect"
	"sort"
	"strconv"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "protobuf:", err)
		os.Exit(1)
	}
}

var scheme = runtime.NewScheme()

func init() {
	check(clientscheme.AddToScheme(scheme))
	check(apiextensionsv1.AddToScheme(scheme))
	check(apidiscoveryv2.AddToScheme(scheme))
	check(metav1.AddMetaToScheme(scheme))
	check(metav1beta1.AddMetaToScheme(scheme))
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
}

var schemaDepth int

func jsonValue(c randfill.Continue) []byte {
	values := []any{nil, true, 1, -2.5, "text \"é\"\n", []any{1, "a", nil}, map[string]any{"a": map[string]any{"b": []any{}}, "c": "}"}}
	out, err := json.Marshal(values[c.Intn(len(values))])
	check(err)
	return out
}

func jsonObject(c randfill.Continue) []byte {
	return []byte(fmt.Sprintf(`{"f:a":{"k:{\"x\":%d}":{".":{}}},"b":%s}`, c.Intn(9), jsonValue(c)))
}

func schemaProps(c randfill.Continue) *apiextensionsv1.JSONSchemaProps {
	var props apiextensionsv1.JSONSchemaProps
	c.Fill(&props)
	return &props
}

var funcs = []any{
	func(t *metav1.TypeMeta, c randfill.Continue) {},
	func(q *resource.Quantity, c randfill.Continue) {
		texts := []string{"0", "1", "100m", "1500m", "64Mi", "3Gi", "1e3", "12E", "-5", "1.5", "100k", "7n"}
		*q = resource.MustParse(texts[c.Intn(len(texts))])
		_ = q.String()
	},
	func(v *intstr.IntOrString, c randfill.Continue) {
		if c.Bool() {
			*v = intstr.FromInt32(int32(c.Uint32()))
		} else {
			*v = intstr.FromString(c.String(8))
		}
	},
	func(t *metav1.Time, c randfill.Continue) {
		if c.Intn(4) > 0 {
			*t = metav1.Unix(c.Int63n(1<<33)-(1<<31), 0)
		}
	},
	func(t *metav1.MicroTime, c randfill.Continue) {
		if c.Intn(4) > 0 {
			*t = metav1.MicroTime{Time: time.Unix(c.Int63n(1<<33)-(1<<31), c.Int63n(1_000_000)*1000)}
		}
	},
	func(d *metav1.Duration, c randfill.Continue) { d.Duration = time.Duration(c.Int63n(1 << 45)) },
	func(r *runtime.RawExtension, c randfill.Continue) {
		if c.Bool() {
			r.Raw = jsonObject(c)
		}
	},
	func(f *metav1.FieldsV1, c randfill.Continue) { f.Raw = jsonObject(c) },
	func(j *apiextensionsv1.JSON, c randfill.Continue) { j.Raw = jsonValue(c) },
	func(s *apiextensionsv1.JSONSchemaProps, c randfill.Continue) {
		schemaDepth++
		if schemaDepth > 3 {
			s.Type = "string"
		} else {
			c.FillNoCustom(s)
		}
		schemaDepth--
	},
	func(s *apiextensionsv1.JSONSchemaPropsOrBool, c randfill.Continue) {
		if s.Allows = c.Bool(); s.Allows && c.Bool() {
			s.Schema = schemaProps(c)
		}
	},
	func(s *apiextensionsv1.JSONSchemaPropsOrArray, c randfill.Continue) {
		if c.Bool() {
			s.Schema = schemaProps(c)
		} else {
			s.JSONSchemas = []apiextensionsv1.JSONSchemaProps{*schemaProps(c), *schemaProps(c)}
		}
	},
	func(s *apiextensionsv1.JSONSchemaPropsOrStringArray, c randfill.Continue) {
		if c.Bool() {
			s.Schema = schemaProps(c)
		} else {
			s.Property = []string{c.String(5), c.String(5)}
		}
	},
}

func write(out *bufio.Writer, data []byte) {
	check(binary.Write(out, binary.BigEndian, uint32(len(data))))
	_, err := out.Write(data)
	check(err)
}

func read(in *bufio.Reader) []byte {
	var length uint32
	check(binary.Read(in, binary.BigEndian, &length))
	data := make([]byte, length)
	_, err := io.ReadFull(in, data)
	check(err)
	return data
}

// kinds of all versions that have a protobuf form.
func kinds() []schema.GroupVersionKind {
	var found []schema.GroupVersionKind
	for gvk, t := range scheme.AllKnownTypes() {
		_, hasForm := reflect.New(t).Interface().(interface{ Marshal() ([]byte, error) })
		// WatchEvents and the options of every group are the core's; the former's object is a document of its own.
		shared := t.PkgPath() == reflect.TypeFor[metav1.Status]().PkgPath() && gvk.Group != "" && gvk.Group != "meta.k8s.io"
		if hasForm && !shared && gvk.Version != runtime.APIVersionInternal && gvk.Kind != "WatchEvent" && gvk.Kind != "Table" && gvk.Kind != "TableOptions" {
			found = append(found, gvk)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].String() < found[j].String() })
	return found
}

func asJSON(object any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(object))
	return bytes.TrimSpace(out.Bytes())
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	check(err)
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	fill := randfill.New().RandSource(rand.NewSource(seed)).NilChance(0.3).NumElements(0, 3).MaxDepth(20).Funcs(funcs...)
	codec := protobuf.NewSerializer(scheme, scheme)
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	failed := 0
	for _, gvk := range kinds() {
		for range count {
			filled, err := scheme.New(gvk)
			check(err)
			fill.Fill(filled)
			filled.GetObjectKind().SetGroupVersionKind(gvk)
			text := asJSON(filled)
			// What JSON does not carry is nothing that protobuf should.
			object, err := scheme.New(gvk)
			check(err)
			check(json.Unmarshal(text, object))
			var document bytes.Buffer
			check(codec.Encode(object, &document))
			write(out, text)
			write(out, document.Bytes())
			check(out.Flush())
			decoded, _, err := codec.Decode(read(in), nil, nil)
			if err != nil {
				failed++
				fmt.Fprintf(os.Stderr, "%s: what rk wrote cannot be read: %v\n  %s\n", gvk, err, text)
				continue
			}
			expected, _, err := codec.Decode(document.Bytes(), nil, nil)
			check(err)
			decoded.GetObjectKind().SetGroupVersionKind(gvk)
			expected.GetObjectKind().SetGroupVersionKind(gvk)
			if a, b := asJSON(decoded), asJSON(expected); !bytes.Equal(a, b) {
				failed++
				fmt.Fprintf(os.Stderr, "%s: rk wrote\n  %s\ninstead of\n  %s\n", gvk, a, b)
			}
		}
	}
	if failed > 0 {
		os.Exit(2)
	}
}

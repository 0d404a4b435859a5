// facts writes what upstream's Go code says about the Kubernetes API as plain tables: groups, kinds, resources, fields, defaults,
// printed columns, bootstrap policy, feature gates. Run by `cargo xtask codegen`; nothing of it is needed to build rk.
//
// usage: facts DIRECTORY [OPENAPI-DIRECTORY]
//
//	facts --oracle
//
// The second form answers requests, see oracle.go and tests/differential.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// schemes in the order in which discovery lists their groups.
var schemes = []*runtime.Scheme{legacyscheme.Scheme, apiextensionsscheme.Scheme, aggregatorscheme.Scheme}

// answered are kinds of answers that belong to no resource: metadata alone, and discovery in one document.
var answered = map[schema.GroupVersion][]any{
	metav1.SchemeGroupVersion:              {metav1.PartialObjectMetadata{}, metav1.PartialObjectMetadataList{}},
	metav1beta1.SchemeGroupVersion:         {metav1beta1.PartialObjectMetadata{}, metav1beta1.PartialObjectMetadataList{}},
	apidiscoveryv2.SchemeGroupVersion:      {apidiscoveryv2.APIGroupDiscovery{}, apidiscoveryv2.APIGroupDiscoveryList{}},
	apidiscoveryv2beta1.SchemeGroupVersion: {apidiscoveryv2beta1.APIGroupDiscovery{}, apidiscoveryv2beta1.APIGroupDiscoveryList{}},
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "facts:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: facts DIRECTORY [OPENAPI-DIRECTORY] | facts --oracle")
		os.Exit(64)
	}
	if os.Args[1] == "--oracle" {
		install(true).answerQuestions(os.Stdin, os.Stdout)
		return
	}
	dir := os.Args[1]
	write := func(name string, data []byte) { check(os.WriteFile(filepath.Join(dir, name), data, 0o644)) }
	write("types.tsv", types())
	openapi := ""
	if len(os.Args) > 2 {
		openapi = os.Args[2]
	}
	server := install(openapi != "")
	if openapi != "" {
		// With only what is served by default, so that the documents are those of a default server.
		server.writeOpenAPI(openapi)
		return
	}
	write("resources.tsv", server.resources())
	write("columns.tsv", server.columns())
	write("bootstrap-policy.json", bootstrapPolicy())
	write("flow-control.json", flowControl())
	write("feature-gates.tsv", featureGates())
}

func featureGates() []byte {
	var lines []string
	for name, spec := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		stage := string(spec.PreRelease)
		if stage == "" {
			stage = "GA"
		}
		lines = append(lines, fmt.Sprintf("%s\t%v\t%s", name, spec.Default, stage))
	}
	return sorted(lines)
}

func sorted(lines []string) []byte {
	sort.Strings(lines)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// compact prints without the escapes that Go's encoder adds for HTML.
func compact(value any) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(value))
	return strings.TrimSpace(out.String())
}

// Package v1beta1 is the version that users began with: one page, and a size in words.
package v1beta1

import (
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"

	v1 "example.com/operator/v1"
)

var GroupVersion = schema.GroupVersion{Group: "web.example.com", Version: "v1beta1"}

// keep holds what this version has no field for.
const keep = "web.example.com/pages."

var sizes = map[string]int32{"small": 1, "medium": 2, "large": 3}

// SiteSpec is what a user wants.
type SiteSpec struct {
	Index string `json:"index"`
	Size  string `json:"size,omitempty"`
	Image string `json:"image"`
}

// Site is a web site.
type Site struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SiteSpec      `json:"spec"`
	Status v1.SiteStatus `json:"status,omitempty"`
}

// ConvertTo makes a v1 of it.
func (s *Site) ConvertTo(hub conversion.Hub) error {
	out := hub.(*v1.Site)
	out.ObjectMeta = *s.ObjectMeta.DeepCopy()
	out.Status = s.Status
	out.Spec = v1.SiteSpec{Image: s.Spec.Image, Pages: map[string]string{"index.html": s.Spec.Index}}
	if s.Spec.Size != "" {
		replicas, known := sizes[s.Spec.Size]
		if !known {
			return fmt.Errorf("there is no size %q", s.Spec.Size)
		}
		out.Spec.Replicas = &replicas
	}
	for key, text := range s.Annotations {
		if len(key) > len(keep) && key[:len(keep)] == keep {
			out.Spec.Pages[key[len(keep):]] = text
			delete(out.Annotations, key)
		}
	}
	return nil
}

// ConvertFrom makes one of a v1.
func (s *Site) ConvertFrom(hub conversion.Hub) error {
	in := hub.(*v1.Site)
	s.ObjectMeta = *in.ObjectMeta.DeepCopy()
	s.Status = in.Status
	s.Spec = SiteSpec{Image: in.Spec.Image, Index: in.Spec.Pages["index.html"]}
	if in.Spec.Replicas != nil {
		for size, replicas := range sizes {
			if replicas == *in.Spec.Replicas {
				s.Spec.Size = size
			}
		}
	}
	for name, text := range in.Spec.Pages {
		if name != "index.html" {
			annotations := maps.Clone(s.Annotations)
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[keep+name] = text
			s.Annotations = annotations
		}
	}
	return nil
}

func (s *Site) DeepCopyObject() runtime.Object {
	out := *s
	out.ObjectMeta = *s.ObjectMeta.DeepCopy()
	out.Status.Conditions = append([]metav1.Condition(nil), s.Status.Conditions...)
	return &out
}

func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Site{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

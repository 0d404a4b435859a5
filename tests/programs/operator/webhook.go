package main

import (
	"context"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	v1 "example.com/operator/v1"
)

// Defaulter fills in what was left out, and says so.
type Defaulter struct{}

func (Defaulter) Default(ctx context.Context, site *v1.Site) error {
	if site.Spec.Replicas == nil {
		one := int32(1)
		site.Spec.Replicas = &one
	}
	request, err := admission.RequestFromContext(ctx)
	if err != nil {
		return err
	}
	if request.Operation == "CREATE" {
		if site.Annotations == nil {
			site.Annotations = map[string]string{}
		}
		site.Annotations["web.example.com/author"] = request.UserInfo.Username
	}
	return nil
}

// Validator refuses what the schema cannot tell.
type Validator struct{}

func (Validator) ValidateCreate(_ context.Context, site *v1.Site) (admission.Warnings, error) {
	return check(site, nil)
}

func (Validator) ValidateUpdate(_ context.Context, old, site *v1.Site) (admission.Warnings, error) {
	if site.DeletionTimestamp != nil {
		return nil, nil
	}
	return check(site, old)
}

func (Validator) ValidateDelete(_ context.Context, site *v1.Site) (admission.Warnings, error) {
	if site.Labels["keep"] == "true" {
		return nil, apierrors.NewForbidden(schema.GroupResource{Group: v1.GroupVersion.Group, Resource: "sites"}, site.Name,
			field.Forbidden(field.NewPath("metadata", "labels").Key("keep"), "the site is kept"))
	}
	return nil, nil
}

func check(site, old *v1.Site) (admission.Warnings, error) {
	var warnings admission.Warnings
	var errors field.ErrorList
	pages := field.NewPath("spec", "pages")
	if _, found := site.Spec.Pages["index.html"]; !found {
		errors = append(errors, field.Required(pages.Key("index.html"), "a site begins somewhere"))
	}
	for name, text := range site.Spec.Pages {
		if strings.Contains(text, "<blink>") {
			warnings = append(warnings, "page "+name+" blinks")
		}
	}
	if old != nil && old.Spec.Theme != "" && old.Spec.Theme != site.Spec.Theme {
		errors = append(errors, field.Invalid(field.NewPath("spec", "theme"), site.Spec.Theme, "field is immutable"))
	}
	if len(errors) > 0 {
		return warnings, apierrors.NewInvalid(v1.GroupVersion.WithKind("Site").GroupKind(), site.Name, errors)
	}
	return warnings, nil
}

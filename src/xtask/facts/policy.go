package main

import (
	"encoding/json"
	"sort"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	flowbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// list prints a v1 List, one object a line.
func list(items []runtime.Object) []byte {
	out := []byte("{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[\n")
	for i, item := range items {
		data, err := json.Marshal(item)
		check(err)
		if i > 0 {
			out = append(out, ",\n"...)
		}
		out = append(out, data...)
	}
	return append(out, "\n]}\n"...)
}

func bootstrapPolicy() []byte {
	var items []runtime.Object
	const version = "rbac.authorization.k8s.io/v1"
	role := func(r rbacv1.ClusterRole) {
		r.Kind, r.APIVersion = "ClusterRole", version
		items = append(items, &r)
	}
	binding := func(b rbacv1.ClusterRoleBinding) {
		b.Kind, b.APIVersion = "ClusterRoleBinding", version
		for i := range b.Subjects {
			if b.Subjects[i].APIGroup == "" && b.Subjects[i].Kind != rbacv1.ServiceAccountKind {
				b.Subjects[i].APIGroup = rbacv1.GroupName
			}
		}
		items = append(items, &b)
	}
	for _, r := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		role(r)
	}
	for _, b := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		binding(b)
	}
	roles := bootstrappolicy.NamespaceRoles()
	for _, namespace := range keys(roles) {
		for _, r := range roles[namespace] {
			r.Kind, r.APIVersion = "Role", version
			items = append(items, &r)
		}
	}
	bindings := bootstrappolicy.NamespaceRoleBindings()
	for _, namespace := range keys(bindings) {
		for _, b := range bindings[namespace] {
			b.Kind, b.APIVersion = "RoleBinding", version
			items = append(items, &b)
		}
	}
	return list(items)
}

func keys[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func flowControl() []byte {
	var items []runtime.Object
	const version = "flowcontrol.apiserver.k8s.io/v1"
	level := func(levels []*flowcontrolv1.PriorityLevelConfiguration) {
		for _, l := range levels {
			l.Kind, l.APIVersion = "PriorityLevelConfiguration", version
			items = append(items, l)
		}
	}
	flow := func(schemas []*flowcontrolv1.FlowSchema) {
		for _, s := range schemas {
			s.Kind, s.APIVersion = "FlowSchema", version
			items = append(items, s)
		}
	}
	level(flowbootstrap.MandatoryPriorityLevelConfigurations)
	level(flowbootstrap.SuggestedPriorityLevelConfigurations)
	flow(flowbootstrap.MandatoryFlowSchemas)
	flow(flowbootstrap.SuggestedFlowSchemas)
	return list(items)
}

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "example.com/operator/v1"
)

const (
	finalizer = "web.example.com/ledger"
	byTheme   = "spec.theme"
	owner     = client.FieldOwner("site-operator")
)

// Reconciler makes of a site a ConfigMap (created or updated), a Deployment (applied) and a line in the ledger (patched).
type Reconciler struct {
	client.Client
	Scheme   *runtime.Scheme
	Recorder events.EventRecorder
	// Ledger is the ConfigMap that knows all sites; it is not theirs, so a finalizer takes its lines away.
	Ledger client.ObjectKey
}

func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	index := func(object client.Object) []string {
		if theme := object.(*v1.Site).Spec.Theme; theme != "" {
			return []string{theme}
		}
		return nil
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1.Site{}, byTheme, index); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1.Site{}).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ConfigMap{}).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.usersOfTheme)).
		Complete(r)
}

func (r *Reconciler) usersOfTheme(ctx context.Context, theme client.Object) []reconcile.Request {
	var sites v1.SiteList
	if err := r.List(ctx, &sites, client.InNamespace(theme.GetNamespace()), client.MatchingFields{byTheme: theme.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the users of a theme")
		return nil
	}
	var requests []reconcile.Request
	for i := range sites.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&sites.Items[i])})
	}
	return requests
}

func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	site := &v1.Site{}
	if err := r.Get(ctx, request.NamespacedName, site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !site.DeletionTimestamp.IsZero() {
		if !controllerutil.ContainsFinalizer(site, finalizer) {
			return ctrl.Result{}, nil
		}
		if err := r.writeLedger(ctx, site, nil); err != nil {
			return ctrl.Result{}, err
		}
		controllerutil.RemoveFinalizer(site, finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(r.Update(ctx, site))
	}
	if !controllerutil.ContainsFinalizer(site, finalizer) {
		before := site.DeepCopy()
		controllerutil.AddFinalizer(site, finalizer)
		if err := r.Patch(ctx, site, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return ctrl.Result{}, err
		}
	}
	pages, err := r.pages(ctx, site)
	if err != nil {
		return ctrl.Result{}, err
	}
	line := fmt.Sprintf("%d pages, %d replicas", len(pages), *site.Spec.Replicas)
	if err := r.writeLedger(ctx, site, &line); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.deploy(ctx, site, pages); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.status(ctx, site)
}

// pages is what the site serves, in a ConfigMap of the site.
func (r *Reconciler) pages(ctx context.Context, site *v1.Site) (map[string]string, error) {
	pages := maps.Clone(site.Spec.Pages)
	if site.Spec.Theme != "" {
		var theme corev1.ConfigMap
		if err := r.Get(ctx, client.ObjectKey{Namespace: site.Namespace, Name: site.Spec.Theme}, &theme); err != nil {
			r.Recorder.Eventf(site, nil, corev1.EventTypeWarning, "NoTheme", "Reading", "theme %s: %v", site.Spec.Theme, err)
			return nil, err
		}
		maps.Copy(pages, theme.Data)
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: site.Namespace, Name: site.Name + "-pages"}}
	result, err := controllerutil.CreateOrUpdate(ctx, r.Client, config, func() error {
		config.Data = pages
		return controllerutil.SetControllerReference(site, config, r.Scheme)
	})
	if err == nil && result != controllerutil.OperationResultNone {
		r.Recorder.Eventf(site, config, corev1.EventTypeNormal, "Pages", "Writing", "ConfigMap %s is %s", config.Name, result)
	}
	return pages, err
}

func (r *Reconciler) deploy(ctx context.Context, site *v1.Site, pages map[string]string) error {
	digest := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		fmt.Fprintf(digest, "%q %q\n", name, pages[name])
	}
	labels := map[string]string{"web.example.com/site": site.Name}
	container := applycorev1.Container().WithName("web").WithImage(site.Spec.Image).WithImagePullPolicy(corev1.PullNever).
		WithCommand("httpd", "-f", "-p", "8080", "-h", "/pages").
		WithPorts(applycorev1.ContainerPort().WithName("http").WithContainerPort(8080)).
		WithReadinessProbe(applycorev1.Probe().WithPeriodSeconds(1).
			WithHTTPGet(applycorev1.HTTPGetAction().WithPath("/index.html").WithPort(intstr.FromString("http")))).
		WithVolumeMounts(applycorev1.VolumeMount().WithName("pages").WithMountPath("/pages"))
	pod := applycorev1.PodSpec().WithTerminationGracePeriodSeconds(1).WithContainers(container).
		WithVolumes(applycorev1.Volume().WithName("pages").
			WithConfigMap(applycorev1.ConfigMapVolumeSource().WithName(site.Name + "-pages")))
	wanted := applyappsv1.Deployment(site.Name, site.Namespace).
		WithOwnerReferences(applymetav1.OwnerReference().WithAPIVersion(v1.GroupVersion.String()).WithKind("Site").WithName(site.Name).
			WithUID(site.UID).WithController(true).WithBlockOwnerDeletion(true)).
		WithSpec(applyappsv1.DeploymentSpec().WithReplicas(*site.Spec.Replicas).
			WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(applycorev1.PodTemplateSpec().WithLabels(labels).
				WithAnnotations(map[string]string{"web.example.com/pages": fmt.Sprintf("%x", digest.Sum(nil))[:12]}).
				WithSpec(pod)))
	return r.Apply(ctx, wanted, owner, client.ForceOwnership)
}

func (r *Reconciler) status(ctx context.Context, site *v1.Site) error {
	before := site.DeepCopy()
	var deployment appsv1.Deployment
	if err := r.Get(ctx, client.ObjectKeyFromObject(site), &deployment); client.IgnoreNotFound(err) != nil {
		return err
	}
	site.Status.ObservedGeneration = site.Generation
	site.Status.ReadyReplicas = deployment.Status.ReadyReplicas
	site.Status.Selector = "web.example.com/site=" + site.Name
	condition := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Starting", ObservedGeneration: site.Generation}
	if settled(&deployment) && deployment.Status.ReadyReplicas == *site.Spec.Replicas {
		condition.Status, condition.Reason = metav1.ConditionTrue, "Serving"
	}
	turned := meta.SetStatusCondition(&site.Status.Conditions, condition)
	if equality.Semantic.DeepEqual(before.Status, site.Status) {
		return nil
	}
	if err := r.Status().Update(ctx, site); err != nil {
		return err
	}
	if turned && condition.Status == metav1.ConditionTrue {
		r.Recorder.Eventf(site, &deployment, corev1.EventTypeNormal, "Serving", "Counting", "%d replicas serve", site.Status.ReadyReplicas)
	}
	return nil
}

func settled(deployment *appsv1.Deployment) bool {
	status := deployment.Status
	return status.ObservedGeneration == deployment.Generation && status.UpdatedReplicas == status.Replicas && deployment.Generation > 0
}

// writeLedger sets the site's line, or takes it away, and touches no other line.
func (r *Reconciler) writeLedger(ctx context.Context, site *v1.Site, line *string) error {
	ledger := &corev1.ConfigMap{}
	if err := r.Get(ctx, r.Ledger, ledger); apierrors.IsNotFound(err) {
		ledger = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Ledger.Namespace, Name: r.Ledger.Name}}
		if err := r.Create(ctx, ledger); client.IgnoreAlreadyExists(err) != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	before := ledger.DeepCopy()
	key := site.Namespace + "." + site.Name
	if line == nil {
		delete(ledger.Data, key)
	} else {
		if ledger.Data == nil {
			ledger.Data = map[string]string{}
		}
		ledger.Data[key] = *line
	}
	if equality.Semantic.DeepEqual(before.Data, ledger.Data) {
		return nil
	}
	return r.Patch(ctx, ledger, client.MergeFrom(before))
}

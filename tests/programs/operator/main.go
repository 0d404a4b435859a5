// An operator as kubebuilder lays one out: a kind in two versions, its webhooks, its controller, a leader, guarded metrics.
package main

import (
	"flag"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	v1 "example.com/operator/v1"
	"example.com/operator/v1beta1"
)

func main() {
	certificates := flag.String("certificates", "/certificates", "the folder of tls.crt and tls.key")
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseDevMode(true)))
	if err := run(*certificates, os.Getenv("NAMESPACE")); err != nil {
		ctrl.Log.Error(err, "the operator ends")
		os.Exit(1)
	}
}

func run(certificates, namespace string) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		LeaderElection:                true,
		LeaderElectionID:              "site-operator",
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 ptr.To(6 * time.Second),
		RenewDeadline:                 ptr.To(4 * time.Second),
		RetryPeriod:                   ptr.To(time.Second),
		HealthProbeBindAddress:        ":8081",
		WebhookServer:                 webhook.NewServer(webhook.Options{CertDir: certificates}),
		Metrics: metricsserver.Options{
			BindAddress: ":8443", SecureServing: true, FilterProvider: filters.WithAuthenticationAndAuthorization,
		},
	})
	if err != nil {
		return err
	}
	reconciler := &Reconciler{
		Client: mgr.GetClient(), Scheme: scheme, Recorder: mgr.GetEventRecorder("site-operator"),
		Ledger: client.ObjectKey{Namespace: namespace, Name: "ledger"},
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return err
	}
	err = ctrl.NewWebhookManagedBy(mgr, &v1.Site{}).WithDefaulter(Defaulter{}).WithValidator(Validator{}).Complete()
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhooks", mgr.GetWebhookServer().StartedChecker()); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

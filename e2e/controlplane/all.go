package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"
	etcdflags "go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

const readyTimeout = 2 * time.Minute

// runAll runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler in this process.
//
// The arguments are those of the four programs, each group after the program's name:
//
//	all etcd --data-dir=... kube-apiserver --secure-port=... kube-controller-manager ... kube-scheduler ...
//
// The Cobra commands of the programs cannot share a process: each claims the signal handler. So the flags
// are parsed into each program's options here, and the parts start in the order in which they need each
// other. The feature gates are global: only those given to kube-apiserver, whose flags are read first, and
// those that follow agree on them. On SIGTERM the clients stop before the servers.
func runAll(args []string) int {
	groups, err := splitArguments(args)
	if err == nil {
		err = serveAll(genericapiserver.SetupSignalContext(), groups)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		return 1
	}
	return 0
}

func splitArguments(args []string) (map[string][]string, error) {
	servers := []string{etcdName, apiServerName, controllerManagerName, schedulerName}
	groups := map[string][]string{}
	current := ""
	for _, arg := range args {
		switch {
		case slices.Contains(servers, arg):
			current = arg
		case current == "":
			return nil, fmt.Errorf("expected one of %v before %q", servers, arg)
		default:
			groups[current] = append(groups[current], arg)
		}
	}
	return groups, nil
}

func serveAll(ctx context.Context, groups map[string][]string) error {
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	api, controllers, sched, err := parseOptions(groups)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(groups[etcdName])
	if err != nil {
		return fmt.Errorf("%s: %w", etcdName, err)
	}
	defer etcd.Close()

	// Clients of the API server stop before it, and it stops before etcd.
	clientCtx, stopClients := context.WithCancel(context.WithoutCancel(ctx))
	defer stopClients()
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAPI()

	failed := make(chan error, 3)
	var apiDone, clientsDone sync.WaitGroup
	apiDone.Go(func() { failed <- named(apiServerName, runAPIServer(apiCtx, api)) })
	err = waitReady(ctx, api.SecureServing.BindPort, failed)
	if err == nil {
		clientsDone.Go(func() { failed <- named(controllerManagerName, runControllerManager(clientCtx, controllers)) })
		clientsDone.Go(func() { failed <- named(schedulerName, runScheduler(clientCtx, sched)) })
		select {
		case <-ctx.Done():
		case err = <-failed:
		case err = <-etcd.Err():
		}
	}
	stopClients()
	clientsDone.Wait()
	stopAPI()
	apiDone.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop: what the parts say while stopping is no failure
	}
	return err
}

func named(program string, err error) error {
	if err == nil {
		err = errors.New("ended")
	}
	return fmt.Errorf("%s: %w", program, err)
}

// parseOptions reads the flags of the three Kubernetes programs.
//
// All flag sets are made before any is parsed: making one closes the shared feature gates to new features.
func parseOptions(groups map[string][]string) (
	*apiserveroptions.ServerRunOptions,
	*controllermanageroptions.KubeControllerManagerOptions,
	*scheduleroptions.Options,
	error,
) {
	api := apiserveroptions.NewServerRunOptions()
	controllers, err := controllermanageroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, nil, nil, err
	}
	sched := scheduleroptions.NewOptions()
	controllerFlags := controllers.Flags(
		controllermanager.KnownControllers(),
		controllermanager.ControllersDisabledByDefault(),
		controllermanager.ControllerAliases(),
	)
	controllers.ParsedFlags = &controllerFlags
	err = errors.Join(
		parse(apiServerName, api.Flags(), groups),
		parse(controllerManagerName, controllerFlags, groups),
		parse(schedulerName, *sched.Flags, groups),
	)
	if err == nil {
		err = api.GenericServerRunOptions.ComponentGlobalsRegistry.Set()
	}
	if err == nil {
		err = logsapi.ValidateAndApply(api.Logs, utilfeature.DefaultFeatureGate)
	}
	return api, controllers, sched, err
}

func parse(program string, named cliflag.NamedFlagSets, groups map[string][]string) error {
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, set := range named.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(groups[program]); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// startEtcd reads etcd's own flags and returns when it answers.
func startEtcd(args []string) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	flags := flag.NewFlagSet(etcdName, flag.ContinueOnError)
	cfg.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	cfg.ListenPeerUrls = etcdflags.UniqueURLsFromFlag(flags, "listen-peer-urls")
	cfg.AdvertisePeerUrls = etcdflags.UniqueURLsFromFlag(flags, "initial-advertise-peer-urls")
	cfg.ListenClientUrls = etcdflags.UniqueURLsFromFlag(flags, "listen-client-urls")
	cfg.AdvertiseClientUrls = etcdflags.UniqueURLsFromFlag(flags, "advertise-client-urls")
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, err
	case <-time.After(readyTimeout):
		etcd.Close()
		return nil, fmt.Errorf("not ready after %s", readyTimeout)
	}
}

func runAPIServer(ctx context.Context, options *apiserveroptions.ServerRunOptions) error {
	completed, err := options.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	return apiserver.Run(ctx, completed)
}

func runControllerManager(ctx context.Context, options *controllermanageroptions.KubeControllerManagerOptions) error {
	config, err := options.Config(
		ctx,
		controllermanager.KnownControllers(),
		controllermanager.ControllersDisabledByDefault(),
		controllermanager.ControllerAliases(),
	)
	if err != nil {
		return err
	}
	return controllermanager.Run(ctx, config.Complete())
}

func runScheduler(ctx context.Context, options *scheduleroptions.Options) error {
	config, sched, err := scheduler.Setup(ctx, options)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, config, sched)
}

// waitReady polls the API server's /readyz, which anonymous clients may read.
func waitReady(ctx context.Context, port int, failed <-chan error) error {
	client := &http.Client{
		Timeout: 5 * time.Second,
		// Only this process listens there, and nothing is sent or believed but "ready".
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	defer client.CloseIdleConnections()
	url := fmt.Sprintf("https://127.0.0.1:%d/readyz", port)
	deadline := time.After(readyTimeout)
	for {
		if answer, err := client.Get(url); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-deadline:
			return fmt.Errorf("%s: not ready after %s", apiServerName, readyTimeout)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Command controlplane is a Kubernetes control plane in one binary.
//
// It links etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl of one release, for
// tests and demos on machines that can fetch Go modules but no container images or release binaries.
// The first argument, or the name the binary is called by, chooses the program; the flags that follow are
// that program's own. "all" runs the four servers in one process (see all.go).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	_ "time/tzdata" // time zones for CronJobs

	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's credential plugins
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const (
	etcdName              = "etcd"
	apiServerName         = "kube-apiserver"
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
	kubectlName           = "kubectl"
	allName               = "all"
)

var programs = []string{etcdName, apiServerName, controllerManagerName, schedulerName, kubectlName, allName}

func main() {
	name := filepath.Base(os.Args[0])
	if !slices.Contains(programs, name) {
		if len(os.Args) < 2 || !slices.Contains(programs, os.Args[1]) {
			fmt.Fprintf(os.Stderr, "usage: %s {%s} [flags]\n", name, strings.Join(programs, "|"))
			os.Exit(2)
		}
		name = os.Args[1]
		os.Args = os.Args[1:] // each program reads its flags from here
	}
	os.Exit(run(name))
}

// run is the main function of the program of that name; it returns the exit code.
func run(name string) int {
	switch name {
	case etcdName:
		etcdmain.Main(os.Args)
		return 0
	case apiServerName:
		return cli.Run(apiserver.NewAPIServerCommand())
	case controllerManagerName:
		return cli.Run(controllermanager.NewControllerManagerCommand())
	case schedulerName:
		return cli.Run(scheduler.NewSchedulerCommand())
	case kubectlName:
		return runKubectl()
	default:
		return runAll(os.Args[1:])
	}
}

func runKubectl() int {
	// kubectl logs while its commands are built, which is before Cobra has parsed -v.
	if _, err := logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints the error and exits with its code
	}
	return 0
}

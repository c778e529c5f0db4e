// Command clients is client-go without kubectl: one operation on one container, or the same many times.
//
// It speaks to an API server, or with -node to a kubelet itself, whose paths and parameters differ, and over
// the transport that is asked for: no fallback, so that a test knows what it has shown.
//
//	clients [flags] exec COMMAND...    stdin, stdout and stderr are the command's with -stdin; its exit code ours
//	clients [flags] attach
//	clients [flags] logs
//	clients [flags] port-forward PORT  prints the local port; ends when stdin does
//	clients [flags] repeat-exec COMMAND...   -count times, -parallel at once; prints the seconds of each
//	clients [flags] follow-logs        -count followers at once; prints the seconds until each had a line,
//	                                   and keeps them until stdin ends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"k8s.io/client-go/rest"
	utilexec "k8s.io/client-go/util/exec"
)

// target is a container, how it is reached, and how often.
type target struct {
	config    *rest.Config
	server    *url.URL
	node      bool // the server is a kubelet
	namespace string
	pod       string
	container string
	transport string
	stdin     bool
	tty       bool
	follow    bool
	count     int
	parallel  int
}

func main() {
	chosen, arguments := parseFlags()
	operations := map[string]func(context.Context, *target, []string) error{
		"exec":         execCommand,
		"attach":       attach,
		"logs":         printLogs,
		"port-forward": forwardPort,
		"repeat-exec":  repeatExec,
		"follow-logs":  followLogs,
	}
	operation, known := operations[arguments[0]]
	if !known {
		fail(fmt.Errorf("unknown operation %q", arguments[0]))
	}
	if err := operation(context.Background(), chosen, arguments[1:]); err != nil {
		fail(err)
	}
}

// fail prints the error and exits: with the command's code if it is that which has failed, else with 125.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	var ended utilexec.CodeExitError
	if errors.As(err, &ended) {
		os.Exit(ended.Code)
	}
	os.Exit(125)
}

func parseFlags() (*target, []string) {
	chosen := &target{config: &rest.Config{QPS: -1}}
	server := flag.String("server", "", "URL of the API server or kubelet")
	flag.StringVar(&chosen.config.CAFile, "ca", "", "who signed the server's certificate")
	flag.StringVar(&chosen.config.BearerToken, "token", "", "a bearer token")
	flag.StringVar(&chosen.config.CertFile, "cert", "", "a client certificate")
	flag.StringVar(&chosen.config.KeyFile, "key", "", "its key")
	flag.BoolVar(&chosen.node, "node", false, "the server is a kubelet")
	flag.StringVar(&chosen.namespace, "namespace", "default", "the pod's")
	flag.StringVar(&chosen.pod, "pod", "", "the pod")
	flag.StringVar(&chosen.container, "container", "main", "the container")
	flag.StringVar(&chosen.transport, "transport", "websocket", "websocket or spdy")
	flag.BoolVar(&chosen.stdin, "stdin", false, "pass stdin on")
	flag.BoolVar(&chosen.tty, "tty", false, "with a terminal")
	flag.BoolVar(&chosen.follow, "follow", false, "follow the logs")
	flag.IntVar(&chosen.count, "count", 1, "how often")
	flag.IntVar(&chosen.parallel, "parallel", 1, "how many at once")
	flag.Parse()
	if flag.NArg() == 0 {
		fail(errors.New("which operation?"))
	}
	parsed, err := url.Parse(*server)
	if err != nil {
		fail(err)
	}
	chosen.server, chosen.config.Host = parsed, *server
	return chosen, flag.Args()
}

// address is the URL of an operation; an API server and a kubelet name paths and parameters differently.
func (t *target) address(operation string, query url.Values) *url.URL {
	address := *t.server
	if t.node {
		address.Path = t.nodePath(operation)
	} else {
		address.Path = fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/%s", t.namespace, t.pod, operation)
		if operation != "portforward" {
			query.Set("container", t.container)
		}
	}
	address.RawQuery = query.Encode()
	return &address
}

func (t *target) nodePath(operation string) string {
	switch operation {
	case "portforward":
		return fmt.Sprintf("/portForward/%s/%s", t.namespace, t.pod)
	case "log":
		return fmt.Sprintf("/containerLogs/%s/%s/%s", t.namespace, t.pod, t.container)
	default:
		return fmt.Sprintf("/%s/%s/%s/%s", operation, t.namespace, t.pod, t.container)
	}
}

// httpClient is one that authenticates as the flags say.
func (t *target) httpClient() (*http.Client, error) {
	return rest.HTTPClientFor(t.config)
}

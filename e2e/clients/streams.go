package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

func execCommand(ctx context.Context, t *target, command []string) error {
	return t.stream(ctx, "exec", command, t.terminal())
}

func attach(ctx context.Context, t *target, _ []string) error {
	return t.stream(ctx, "attach", nil, t.terminal())
}

// terminal is this process's stdin, if it is to be passed on, and its outputs.
func (t *target) terminal() remotecommand.StreamOptions {
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: t.tty}
	if t.stdin {
		options.Stdin = os.Stdin
	}
	if !t.tty {
		options.Stderr = os.Stderr
	}
	return options
}

func (t *target) stream(
	ctx context.Context, operation string, command []string, options remotecommand.StreamOptions,
) error {
	executor, err := t.executor(t.address(operation, t.streamQuery(command, options)))
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, options)
}

// streamQuery names the streams: stdin, stdout and stderr to an API server, input, output, error to a kubelet.
func (t *target) streamQuery(command []string, options remotecommand.StreamOptions) url.Values {
	stdin, stdout, stderr := "stdin", "stdout", "stderr"
	if t.node {
		stdin, stdout, stderr = "input", "output", "error"
	}
	query := url.Values{"command": command}
	for name, wanted := range map[string]bool{
		stdin: options.Stdin != nil, stdout: options.Stdout != nil, stderr: options.Stderr != nil, "tty": options.Tty,
	} {
		if wanted {
			query.Set(name, "1")
			if !t.node {
				query.Set(name, "true")
			}
		}
	}
	return query
}

func (t *target) executor(address *url.URL) (remotecommand.Executor, error) {
	switch t.transport {
	case "spdy":
		return remotecommand.NewSPDYExecutor(t.config, http.MethodPost, address)
	case "websocket":
		return remotecommand.NewWebSocketExecutor(t.config, http.MethodGet, address.String())
	default:
		return nil, fmt.Errorf("unknown transport %q", t.transport)
	}
}

func forwardPort(_ context.Context, t *target, ports []string) error {
	dialer, err := t.dialer(t.address("portforward", url.Values{}))
	if err != nil {
		return err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, []string{":" + ports[0]}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		<-ready
		forwarded, err := forwarder.GetPorts()
		if err != nil {
			fail(err)
		}
		fmt.Println(forwarded[0].Local)
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it, it has ended
		close(stop)
	}()
	return forwarder.ForwardPorts()
}

// dialer carries SPDY, bare or tunnelled through a WebSocket.
func (t *target) dialer(address *url.URL) (httpstream.Dialer, error) {
	if t.transport == "websocket" {
		return portforward.NewSPDYOverWebsocketDialer(address, t.config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(t.config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, address), nil
}

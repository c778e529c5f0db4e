package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/remotecommand"
)

// measured is what is printed: how long each took, and all together.
type measured struct {
	Seconds []float64 `json:"seconds"`
	Total   float64   `json:"total"`
	Failed  int       `json:"failed"`
	Error   string    `json:"error,omitempty"` // of the first that failed
}

func repeatExec(ctx context.Context, t *target, command []string) error {
	return printed(t.repeat(func() error {
		var output bytes.Buffer
		options := remotecommand.StreamOptions{Stdout: &output, Stderr: &output}
		if err := t.stream(ctx, "exec", command, options); err != nil {
			return fmt.Errorf("%w: %s", err, output.String())
		}
		return nil
	}))
}

func followLogs(ctx context.Context, t *target, _ []string) error {
	client, err := t.httpClient()
	if err != nil {
		return err
	}
	t.follow, t.parallel = true, t.count
	var lock sync.Mutex
	var open []io.Closer
	err = printed(t.repeat(func() error {
		body, err := t.openLogs(ctx, client)
		if err != nil {
			return err
		}
		lock.Lock()
		open = append(open, body)
		lock.Unlock()
		return firstLine(body)
	}))
	_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started us has seen enough
	for _, body := range open {
		body.Close()
	}
	return err
}

// repeat does something count times, parallel at once.
func (t *target) repeat(act func() error) measured {
	result := measured{Seconds: make([]float64, t.count)}
	numbers := make(chan int)
	var lock sync.Mutex
	var workers sync.WaitGroup
	started := time.Now()
	for range t.parallel {
		workers.Go(func() {
			for number := range numbers {
				begun := time.Now()
				err := act()
				result.Seconds[number] = time.Since(begun).Seconds()
				if err != nil {
					lock.Lock()
					result.note(err)
					lock.Unlock()
				}
			}
		})
	}
	for number := range t.count {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	result.Total = time.Since(started).Seconds()
	return result
}

func (m *measured) note(err error) {
	if m.Failed++; m.Failed == 1 {
		m.Error = err.Error()
	}
}

func printed(result measured) error {
	return json.NewEncoder(os.Stdout).Encode(result)
}

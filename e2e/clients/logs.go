package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

func printLogs(ctx context.Context, t *target, _ []string) error {
	client, err := t.httpClient()
	if err != nil {
		return err
	}
	body, err := t.openLogs(ctx, client)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(os.Stdout, body)
	return err
}

// openLogs asks for the container's log; an answer other than 200 is an error with the server's words.
func (t *target) openLogs(ctx context.Context, client *http.Client) (io.ReadCloser, error) {
	query := url.Values{}
	if t.follow {
		query.Set("follow", "true")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.address("log", query).String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		return nil, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return answer.Body, nil
}

// firstLine waits for a line of a log that is being followed.
func firstLine(log io.Reader) error {
	_, err := bufio.NewReader(log).ReadString('\n')
	return err
}

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMonitorServesMetricsAndHealth(t *testing.T) {
	sick := make(chan error, 1)
	sick <- nil
	m, err := NewMonitor("127.0.0.1:0", quiet(), NewRegistry(), map[string]Check{
		"steady": func(context.Context) error { return nil },
		"moody":  func(context.Context) error { return <-sick },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	base := "http://" + m.Addr()

	status, body := get(t, base+"/healthz")
	if status != http.StatusOK {
		t.Errorf("healthy: %d %s", status, body)
	}
	sick <- errors.New("not connected")
	status, body = get(t, base+"/healthz")
	var says map[string]string
	if err := json.Unmarshal([]byte(body), &says); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"steady": "ok", "moody": "not connected"}, says); diff != "" || status != http.StatusServiceUnavailable {
		t.Errorf("unhealthy: %d %s", status, diff)
	}
	if _, body := get(t, base+"/metrics"); !strings.Contains(body, "go_goroutines") || !strings.Contains(body, "go_build_info") {
		t.Errorf("metrics lack go_goroutines or go_build_info: %.200s", body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := NewMonitor("127.0.0.1:0", quiet(), NewRegistry(), nil); err != nil {
		t.Error(err)
	}
}

func TestMonitorServesOverTLSAlone(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate, and a client that trusts it
	defer web.Close()
	m, err := NewMonitor("127.0.0.1:0", quiet(), NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.TLS = web.TLS
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	resp, err := web.Client().Get("https://" + m.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if status, body := get(t, "http://"+m.Addr()+"/metrics"); status != http.StatusBadRequest {
		t.Errorf("clear text is answered: %d %.100s", status, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMonitorTellsAnAddressInUseAtOnce(t *testing.T) {
	first, err := NewMonitor("127.0.0.1:0", quiet(), NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.listener.Close()
	if _, err := NewMonitor(first.Addr(), quiet(), NewRegistry(), nil); err == nil {
		t.Error("two monitors on one address")
	}
}

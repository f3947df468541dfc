package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/services/daemon"
)

// metrics gives a file of what the server's /metrics tells.
func (s *site) metrics(t *testing.T) (file string) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.data, "tls", "ca.pem"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		return s.lab.Dial(network, address)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: s.lab.Address()}}}
	resp, err := client.Get("https://" + daemon.DefaultListen + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return written(t, text)
}

// ownMetrics gives a file of what the /metrics of the machine's agent tells, which it does on the machine alone.
func (s story) ownMetrics(t *testing.T) (file string) {
	t.Helper()
	return written(t, []byte(s.m.Exec("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9651; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)))
}

func written(t *testing.T, text []byte) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "metrics")
	must(t, os.WriteFile(file, text, 0o600))
	return file
}

// wantCounted makes sure that an agent has counted its failed accesses by reason, so many at least, and the credential
// service those for which it had no account.
func (s outsideStory) wantCounted(t *testing.T, who identity.Who, counts map[events.Reason]int) {
	t.Helper()
	agent, services := s.ownMetrics(t), s.metrics(t)
	for reason, least := range counts {
		label := fmt.Sprintf("reason=%q", reason)
		if n := sumOf(t, agent, "chandler_agent_accesses_total", []string{label, fmt.Sprintf("identity=%q", who)}); n < float64(least) {
			t.Errorf("%s: the agent counted %v accesses by %s, want %d", reason, n, who, least)
		}
		if reason != events.NetworkAccessAccountMissing {
			continue // the account was lent
		}
		if n := sumOf(t, services, "chandler_credentials_leases_total", []string{label, `result="denied"`}); n < float64(least) {
			t.Errorf("%s: the credential service counted %v denials, want %d", reason, n, least)
		}
	}
}

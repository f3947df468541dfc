package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// DefaultListen is where /metrics and /healthz are served when nothing else is said: on loopback only,
// since neither asks who is there.
const DefaultListen = "127.0.0.1:9650"

// checkTimeout bounds one health check.
const checkTimeout = 3 * time.Second

// NewRegistry makes the process's metrics registry, with what Go and the operating system tell.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return r
}

// Check says what is wrong with one part of the process; nil: nothing.
type Check func(ctx context.Context) error

// Monitor serves /metrics and /healthz.
type Monitor struct {
	// TLS, if it is set before Run, makes them https.
	TLS      *tls.Config
	listener net.Listener
	log      *slog.Logger
	gatherer prometheus.Gatherer
	checks   map[string]Check
}

// NewMonitor binds the address (empty: DefaultListen), so that an address in use is told at once; Run
// serves. checks are asked at every request of /healthz.
func NewMonitor(listen string, log *slog.Logger, gatherer prometheus.Gatherer, checks map[string]Check) (*Monitor, error) {
	if listen == "" {
		listen = DefaultListen
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen for /metrics and /healthz: %w", err)
	}
	return &Monitor{listener: l, log: log.With("component", "daemon"), gatherer: gatherer, checks: checks}, nil
}

// Addr is where the monitor listens, host:port.
func (m *Monitor) Addr() string { return m.listener.Addr().String() }

// Run serves until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", m.health)
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	m.log.Info("serving /metrics and /healthz", "address", m.Addr(), "tls", m.TLS != nil)
	serve := server.Serve
	if m.TLS != nil {
		server.TLSConfig = m.TLS.Clone()
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	if err := serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve /metrics: %w", err)
	}
	return nil
}

// health answers 200 when every check passes, else 503; the body is JSON: {"name": "ok" or what is wrong}.
func (m *Monitor) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	says := make(map[string]string, len(m.checks))
	status := http.StatusOK
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range m.checks {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			says[name] = "ok"
			if err != nil {
				says[name], status = err.Error(), http.StatusServiceUnavailable
			}
		})
	}
	wg.Wait()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(says) // the client has gone: nobody is left to tell
}

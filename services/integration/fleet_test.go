package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
	"chandler/services/content/publish"
	"chandler/services/credentials"
)

// fleet is a broker, the services, an administrator with a key, and machines.
type fleet struct {
	t         *testing.T
	dir       string
	broker    *eventstest.SecureBroker
	admin     *bus.Bus // with an administrator's rights
	owner     *bus.Bus // may do anything: looks into what is stored, and damages it
	roots     []sign.Signer
	key       sign.Key // of a deployer and publisher
	trust     trust.Bundle
	bundle    []byte                     // trust, signed
	change    func(*credentials.Options) // nil: none
	services  map[string]*running
	machines  map[string]*machine
	synced    string // see serviceFile.Synced
	contentAt string // the same after a restart, as it would be
	registry  map[string]*prometheus.Registry
	log       *logBuffer
	packages  map[string]string // directories by manifest digest
}

// logBuffer gathers the services' logs for failures.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// newFleet starts broker and services and says whom to trust; everything ends with the test.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := bareFleet(t)
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	return f
}

// bareFleet starts the broker alone; change may alter its options.
func bareFleet(t *testing.T, change ...func(*server.Options)) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), broker: eventstest.Secure(t, change...), services: map[string]*running{}, machines: map[string]*machine{},
		registry: map[string]*prometheus.Registry{}, packages: map[string]string{}, log: &logBuffer{}}
	t.Cleanup(f.close)
	f.admin = f.broker.Bus(t, access.Administrator, "admin")
	f.owner = f.broker.Owner(t)
	f.makeTrust()
	return f
}

// makeTrust makes roots and a key, and says whom to trust.
func (f *fleet) makeTrust() {
	t := f.t
	t.Helper()
	f.roots = []sign.Signer{newKey(t, 1), newKey(t, 2)}
	f.key = newKey(t, 7)
	f.trust = trust.Bundle{Format: trust.Format, Fleet: "testfleet", Version: 1, Threshold: 1, Keys: []sign.PublicKey{f.key.Public().Named("deployer")},
		Publishers: []sign.PublicKey{f.key.Public().Named("publisher")}, Issued: time.Now().UTC().Truncate(time.Second),
		Roots: trust.Roots{Threshold: 2, Keys: []sign.PublicKey{f.roots[0].Public().Named("root-1"), f.roots[1].Public().Named("root-2")}}}
}

// newKey makes the same key of the same number.
func newKey(t testing.TB, number byte) sign.Key {
	t.Helper()
	key, err := sign.NewKey(bytes.Repeat([]byte{number}, 32))
	must(t, err)
	return key
}

// setTrust signs a bundle and hands it to the fleet.
func (f *fleet) setTrust(b trust.Bundle, roots ...sign.Signer) {
	f.t.Helper()
	var err error
	f.bundle, err = trust.Sign(b, roots...)
	must(f.t, err)
	mustAsk(f, events.TrustSet, events.TrustRequest{Bundle: f.bundle})
	f.trust = b
}

// token makes an enrolment token, as text.
func (f *fleet) token(name string, change ...func(*events.TokenRequest)) string {
	f.t.Helper()
	seed, public, err := enrolment.NewKey()
	must(f.t, err)
	request := events.TokenRequest{Token: public, Name: name, Expires: time.Now().Add(time.Hour)}
	for _, c := range change {
		c(&request)
	}
	view := mustAsk(f, events.TokenCreate, request)
	text, err := enrolment.Token{Servers: []string{f.broker.URL()}, Root: f.trust.Roots.Fingerprint(), JWT: view.EnrolmentJWT, Seed: seed}.Encode()
	must(f.t, err)
	return text
}

func (f *fleet) close() {
	for _, m := range f.machines {
		if m.cmd != nil {
			m.kill()
		}
	}
	for name := range f.services {
		f.stopService(name)
	}
	if f.t.Failed() {
		f.t.Logf("services said:\n%s", tail(f.log.String()))
		for _, m := range f.machines {
			f.t.Logf("agent %s said:\n%s", m.name, tail(m.log()))
		}
	}
}

func tail(s string) string {
	if len(s) > 6000 {
		return "…" + s[len(s)-6000:]
	}
	return s
}

// machine makes a machine and starts its agent.
func (f *fleet) machine(name string, change ...func(*agentFile)) *machine {
	f.t.Helper()
	m := &machine{t: f.t, name: name, dir: filepath.Join(f.dir, "machines", name)}
	must(f.t, os.MkdirAll(m.root(), 0o700))
	m.file = agentFile{StateDir: filepath.Join(m.dir, "state"), Root: m.root(), Server: f.broker.URL(), Hostname: name, Token: f.token(name), Beacon: 5 * time.Second,
		RetryAfter: 300 * time.Millisecond}
	for _, c := range change {
		c(&m.file)
	}
	f.machines[name] = m
	m.start()
	m.agentID()
	return m
}

// ask makes a request as the administrator, again while the service starts.
func ask[Req, Resp any](f *fleet, call events.Call[Req, Resp], req Req) (Resp, error) {
	f.t.Helper()
	var resp Resp
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		resp, err = bus.Request(ctx, f.admin, "admin", call, req)
		cancel()
		if !errors.Is(err, bus.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, nats.ErrDisconnected) && !errors.Is(err, nats.ErrNoResponders) {
			return resp, err
		}
	}
	return resp, err
}

func mustAsk[Req, Resp any](f *fleet, call events.Call[Req, Resp], req Req) Resp {
	f.t.Helper()
	resp, err := ask(f, call, req)
	if err != nil {
		f.t.Fatalf("%s.%s: %v", call.Service, call.Verb, err)
	}
	return resp
}

// contentCalls is content as publishing needs it.
type contentCalls struct{ f *fleet }

func (c contentCalls) Upload(_ context.Context, r events.UploadRequest) (events.UploadAnswer, error) {
	return ask(c.f, events.ContentUpload, r)
}
func (c contentCalls) Commit(_ context.Context, r events.CommitRequest) (events.PackageInfo, error) {
	return ask(c.f, events.ContentCommit, r)
}

// probe is a package whose program tells in $ROOT/ran that it ran, waits while $ROOT/hold is there, and
// exits with what $ROOT/exit says, or once with what $ROOT/exit-once says.
const probe = `api: chandler/v1
package: probe
version: "%s"
programs:
  install:
    shell: sh
    command: |
      echo "$CHANDLER_JOB $CHANDLER_ATTEMPT" >> "$ROOT/ran"
      cat payload > "$ROOT/payload"
      touch "$ROOT/started"
      while [ -e "$ROOT/hold" ]; do sleep 0.02; done
      echo "probe is done"
      code="$(cat "$ROOT/exit-once" 2>/dev/null || cat "$ROOT/exit" 2>/dev/null || echo 0)"
      rm -f "$ROOT/exit-once"
      exit "$code"
    run: administrative
%s`

// publish publishes the probe in a version, with a payload and further lines of its program.
func (f *fleet) publish(version string, payload []byte, more string) events.PackageInfo {
	f.t.Helper()
	dir := filepath.Join(f.t.TempDir(), "probe")
	must(f.t, os.MkdirAll(dir, 0o700))
	must(f.t, os.WriteFile(filepath.Join(dir, "package.yaml"), fmt.Appendf(nil, probe, version, more), 0o600))
	must(f.t, os.WriteFile(filepath.Join(dir, "payload"), payload, 0o600))
	return f.publishDir(dir, time.Now)
}

// publishDir reads a package's directory at a time and publishes what it holds.
func (f *fleet) publishDir(dir string, now func() time.Time) events.PackageInfo {
	f.t.Helper()
	plan, err := publish.Read(f.t.Context(), dir, publish.Options{Now: now, Seal: f.seal})
	must(f.t, err)
	info := f.upload(plan)
	f.packages[info.Digest] = dir
	return info
}

// seal signs a manifest as the publisher.
func (f *fleet) seal(m events.Manifest) ([]byte, error) { return manifest.Seal(m, f.key) }

func (f *fleet) upload(plan *publish.Plan) events.PackageInfo {
	f.t.Helper()
	info, err := publish.Upload(f.t.Context(), plan, contentCalls{f}, nil, nil)
	must(f.t, err)
	return info
}

// publishAgain reads the same directory once more, an hour later, and publishes it: it stays the same package.
func (f *fleet) publishAgain(p events.PackageInfo) events.PackageInfo {
	f.t.Helper()
	again := f.publishDir(f.packages[p.Digest], func() time.Time { return time.Now().Add(time.Hour) })
	if again.Digest != p.Digest {
		f.t.Fatalf("published again, %s became %s", p.Digest, again.Digest)
	}
	return again
}

// everyone makes the collection of all agents and waits until it has so many members.
func (f *fleet) everyone(members int) events.CollectionView {
	f.t.Helper()
	mustAsk(f, events.CollectionSet, events.Collection{Name: "everyone", Expression: "true"})
	var view events.CollectionView
	eventually(f.t, fmt.Sprintf("%d agents are known", members), func() bool {
		view = mustAsk(f, events.CollectionShow, events.Named{Name: "everyone"})
		return len(view.Members) == members
	})
	return view
}

// deploy signs and sends a deployment of the probe to everyone.
func (f *fleet) deploy(name string, p events.PackageInfo, change ...func(*order.Order)) events.DeploymentView {
	f.t.Helper()
	return mustAsk(f, events.DeploymentCreate, f.sign(name, p, change...))
}

func (f *fleet) sign(name string, p events.PackageInfo, change ...func(*order.Order)) events.DeploymentRequest {
	f.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	o := order.Order{Fleet: f.trust.Fleet, Deployment: name, Revision: 1, Package: p.Manifest.Package, Version: p.Manifest.Version, Manifest: p.Digest,
		Program: "install", Run: events.RunAdministrative, Collection: "everyone", Expression: "true", Assignments: []order.Assignment{{ASAP: true}},
		Rerun: order.RerunAlways, Issued: now, NotAfter: now.Add(24 * time.Hour)}
	for _, c := range change {
		c(&o)
	}
	envelope, err := order.Sign(o, f.key)
	must(f.t, err)
	return events.DeploymentRequest{Envelope: envelope}
}

// deploySigned deploys and gives what was sent, to send it again.
func (f *fleet) deploySigned(name string, p events.PackageInfo, change ...func(*order.Order)) events.DeploymentRequest {
	f.t.Helper()
	request := f.sign(name, p, change...)
	mustAsk(f, events.DeploymentCreate, request)
	return request
}

// row is a machine's job of a deployment as execution sees it.
func (f *fleet) row(deployment string, m *machine) (events.JobRow, bool) {
	rows, err := ask(f, events.ExecutionJobs, events.JobQuery{Deployment: deployment, Agent: m.id})
	if err != nil || len(rows.Jobs) == 0 {
		return events.JobRow{}, false
	}
	return rows.Jobs[0], true
}

// wantWaiting waits until a job waits, for that.
func (f *fleet) wantWaiting(deployment string, m *machine, what events.WaitingFor) {
	f.t.Helper()
	if row := f.want(deployment, m, events.Waiting); row.WaitingFor != what {
		f.t.Fatalf("%s's job of %s waits for %s, not for %s", m.name, deployment, row.WaitingFor, what)
	}
}

// want waits until execution sees a machine's job in a state; another end is a failure at once.
func (f *fleet) want(deployment string, m *machine, state events.State) events.JobRow {
	f.t.Helper()
	var row events.JobRow
	eventually(f.t, fmt.Sprintf("%s's job of %s is %s", m.name, deployment, state), func() bool {
		var ok bool
		if row, ok = f.row(deployment, m); ok && row.State.Terminal() && row.State != state {
			f.t.Fatalf("%s's job of %s is %s (%s), not %s", m.name, deployment, row.State, row.Reason, state)
		}
		return ok && row.State == state
	})
	return row
}

// statuses reads every status stored for a machine's job, oldest first, each id once. What is no status is
// left out: some stories send such things.
func (f *fleet) statuses(deployment string, m *machine) []events.JobStatus {
	f.t.Helper()
	var list []events.JobStatus
	seen := map[string]bool{}
	_, err := f.owner.Replay(f.t.Context(), events.StreamStatus, "chandler.job.*."+m.id+".*", 1, func(msg jetstream.Msg) error {
		e, err := typed[events.JobStatus](msg)
		if err == nil && e.Data.Deployment == deployment && !seen[e.ID] {
			seen[e.ID] = true
			list = append(list, e.Data)
		}
		return nil
	})
	must(f.t, err)
	return list
}

// typed reads a stored message as an event.
func typed[T any](m jetstream.Msg) (events.Event[T], error) {
	ce, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	if err != nil {
		return events.Event[T]{}, err
	}
	return bus.Typed[T](ce)
}

// check asserts what must hold after every story: a job has exactly one terminal status in an attempt, it is the
// one that execution has, and no attempt ran twice.
func (f *fleet) check(deployment string, machines ...*machine) {
	f.t.Helper()
	for _, m := range machines {
		terminal := map[int][]events.State{}
		for _, s := range f.statuses(deployment, m) {
			if s.State.Terminal() {
				terminal[s.Attempt] = append(terminal[s.Attempt], s.State)
			}
		}
		row, _ := f.row(deployment, m)
		if got := terminal[row.Attempt]; len(got) != 1 || got[0] != row.State {
			f.t.Errorf("%s: terminal statuses of attempt %d are %v, execution has %s", m.name, row.Attempt, got, row.State)
		}
		runs := m.ran()
		slices.Sort(runs)
		if twice := slices.Compact(slices.Clone(runs)); len(twice) != len(runs) {
			f.t.Errorf("%s: an attempt ran twice: %s", m.name, strings.Join(runs, ", "))
		}
	}
}

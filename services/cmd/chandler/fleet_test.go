package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/trust"
)

// fakeFleet answers as the services would, from what a test put into it, on a real broker.
type fakeFleet struct {
	app *app
	bus *bus.Bus // of the test itself

	mu         sync.Mutex
	agents     []events.AgentView
	packages   []events.PackageInfo
	collection events.CollectionView // also the only one that is listed
	deployment *events.DeploymentView
	received   *events.DeploymentRequest
	decisions  []events.WhyDecision
	freezes    []events.Freeze
	jobs       []events.JobRow
	stops      []events.StopAnswer // the first answers stop, the next each further question
	bundles    [][]byte            // of trust

	refuseTrust error // what hands over a bundle is answered
	draft       *events.DraftView
	progress    *events.Progress
	enrolments  []events.EnrolmentView
	accounts    []events.AccountView
	removed     []string // accounts
	deployments []events.DeploymentView
	contentAway error // what lists packages is answered
	limits      events.Limits
	outcomes    map[string]events.OutcomeAnswer // by package
	asked       map[string]any                  // the last request of each verb that changes a rollout
	fakeLending
}

func newFakeFleet(t *testing.T) *fakeFleet {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	b, err := startBroker(t.Context(), brokerOptions{Dir: filepath.Join(dir, "broker"), Listen: "127.0.0.1:0", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	f := &fakeFleet{app: testApp(map[string]string{"XDG_CONFIG_HOME": filepath.Join(dir, "config")})}
	f.app.timeout = 0 // set by the flag's default
	store, err := f.app.contexts()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.save(connection{Name: localName, Server: b.url(), Caller: defaultCaller}); err != nil {
		t.Fatal(err)
	}
	if err := store.choose(localName); err != nil {
		t.Fatal(err)
	}
	f.bus = f.serve(t, b, log)
	return f
}

// serve runs all services until the test ends; it returns when they answer.
func (f *fakeFleet) serve(t *testing.T, b *broker, log *slog.Logger) *bus.Bus {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(b.server))
	if err != nil {
		t.Fatal(err)
	}
	made, err := bus.New(bus.Options{Conn: nc, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Provision(t.Context(), bus.Topology{MaxBytesScale: b.scale}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for name, endpoints := range f.endpoints() {
		running.Go(func() {
			if err := made.Serve(ctx, name, "0.0.1", endpoints...); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait(); nc.Close() })
	for name, endpoints := range f.endpoints() {
		if err := awaitService(t.Context(), nc, name, len(endpoints)); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

// awaitService waits until a service answers on so many endpoints: it is there for pings before it has
// them all.
func awaitService(ctx context.Context, nc *nats.Conn, name string, endpoints int) error {
	subject, err := micro.ControlSubject(micro.InfoVerb, name, "")
	if err != nil {
		return err
	}
	for {
		asking, cancel := context.WithTimeout(ctx, pingTime)
		answer, err := nc.RequestWithContext(asking, subject, nil)
		cancel()
		var info micro.Info
		if err == nil && json.Unmarshal(answer.Data, &info) == nil && len(info.Endpoints) >= endpoints {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("service %s does not answer: %w", name, ctx.Err())
		}
	}
}

// set changes what the services answer.
func (f *fakeFleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// sent is the deployment that was received, or nil.
func (f *fakeFleet) sent() *events.DeploymentRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received
}

// with makes an answer under the lock.
func with[Req, Resp any](f *fakeFleet, call events.Call[Req, Resp], answer func(Req) (Resp, error)) bus.Endpoint {
	return bus.Answer(call, func(_ context.Context, _ string, r Req) (Resp, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return answer(r)
	})
}

func (f *fakeFleet) endpoints() map[string][]bus.Endpoint {
	return map[string][]bus.Endpoint{
		"credentials": append(f.lending(), []bus.Endpoint{
			with(f, events.AccountList, func(events.Nothing) (events.AccountViews, error) {
				return events.AccountViews{Accounts: f.accounts}, nil
			}),
			with(f, events.AccountRemove, func(n events.Named) (events.Nothing, error) {
				f.removed = append(f.removed, n.Name)
				return events.Nothing{}, nil
			}),
			with(f, events.EnrolmentList, func(q events.EnrolmentQuery) (events.EnrolmentViews, error) {
				return events.EnrolmentViews{Enrolments: slices.DeleteFunc(slices.Clone(f.enrolments), func(e events.EnrolmentView) bool {
					return len(q.Agents) > 0 && !slices.Contains(q.Agents, e.Agent)
				})}, nil
			}),
			with(f, events.TrustShow, func(q events.TrustQuery) (events.TrustAnswer, error) {
				return events.TrustAnswer{Bundles: slices.DeleteFunc(slices.Clone(f.bundles), func(envelope []byte) bool {
					b, err := trust.Open(envelope)
					return err == nil && b.Version <= q.Have
				})}, nil
			}),
			with(f, events.TrustSet, func(r events.TrustRequest) (events.TrustNotice, error) {
				if f.refuseTrust == nil {
					f.bundles = append(f.bundles, r.Bundle)
				}
				return events.TrustNotice{}, f.refuseTrust
			}),
		}...),
		"content": {with(f, events.ContentShow, func(n events.Named) (events.PackageInfo, error) {
			for _, p := range f.packages {
				if p.Manifest.Package == n.Name {
					return p, nil
				}
			}
			return events.PackageInfo{}, bus.NotFound(os.ErrNotExist)
		}), with(f, events.ContentList, func(events.Nothing) (events.PackageList, error) {
			return events.PackageList{Packages: f.packages}, f.contentAway
		})},
		"scheduling": append(f.changing(), []bus.Endpoint{
			with(f, events.AgentList, func(q events.AgentQuery) (events.AgentViews, error) {
				return events.AgentViews{Agents: slices.DeleteFunc(slices.Clone(f.agents), func(v events.AgentView) bool {
					return q.Name != "" && v.Facts.ID != q.Name && v.Facts.Hostname != q.Name
				})}, nil
			}),
			with(f, events.CollectionList, func(events.Nothing) (events.CollectionViews, error) {
				return events.CollectionViews{Collections: []events.CollectionView{f.collection}}, nil
			}),
			with(f, events.CollectionShow, func(events.Named) (events.CollectionView, error) { return f.collection, nil }),
			with(f, events.DeploymentShow, func(events.Named) (events.DeploymentView, error) {
				if f.deployment == nil {
					return events.DeploymentView{}, bus.NotFound(os.ErrNotExist)
				}
				return *f.deployment, nil
			}),
			with(f, events.DeploymentDraft, func(events.Named) (events.DraftView, error) {
				if f.draft == nil {
					return events.DraftView{}, bus.NotFound(os.ErrNotExist)
				}
				return *f.draft, nil
			}),
			with(f, events.DeploymentCreate, func(r events.DeploymentRequest) (events.DeploymentView, error) {
				f.received = &r
				return events.DeploymentView{Life: events.LifeActive}, nil
			}),
			with(f, events.DeploymentList, func(events.Nothing) (events.DeploymentViews, error) {
				return events.DeploymentViews{Deployments: f.deployments}, nil
			}),
			with(f, events.CollectionPreview, func(wanted events.Collection) (events.CollectionView, error) {
				return events.CollectionView{Collection: wanted, Members: f.collection.Members}, nil
			}),
			with(f, events.LimitsShow, func(events.Nothing) (events.Limits, error) { return f.limits, nil }),
			with(f, events.Why, func(events.WhyRequest) (events.WhyAnswer, error) { return events.WhyAnswer{Answers: f.decisions}, nil }),
		}...),
		"execution": {
			with(f, events.ExecutionProgress, func(events.Named) (events.Progress, error) {
				if f.progress == nil {
					return events.Progress{}, bus.NotFound(os.ErrNotExist)
				}
				return *f.progress, nil
			}),
			with(f, events.ExecutionFreezes, func(events.Nothing) (events.FreezeList, error) { return events.FreezeList{Freezes: f.freezes}, nil }),
			with(f, events.ExecutionJobs, func(events.JobQuery) (events.JobRows, error) { return events.JobRows{Jobs: f.jobs}, nil }),
			with(f, events.ExecutionOutcomes, func(q events.OutcomeQuery) (events.OutcomeAnswer, error) { return f.outcomes[q.Package], nil }),
			with(f, events.ExecutionStop, func(events.StopRequest) (events.StopAnswer, error) { return f.stops[0], nil }),
			with(f, events.ExecutionStopped, func(events.StopQuery) (events.StopAnswer, error) {
				if len(f.stops) > 1 {
					f.stops = f.stops[1:]
				}
				return f.stops[0], nil
			}),
		},
	}
}

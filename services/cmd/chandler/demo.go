package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/content/publish"
	"chandler/services/daemon"
)

// demo is the main job of the whole system, once, on this machine: nothing in it is simulated.
type demo struct {
	*app
	agents  int
	keep    bool
	dir     string
	out     io.Writer // for people
	server  *server
	client  *client
	started time.Time
}

// demoTime bounds the whole demonstration.
const demoTime = 2 * time.Minute

func newDemo(a *app) *cobra.Command {
	d := &demo{app: a}
	cmd := &cobra.Command{
		Use: "demo", Short: "See it work: broker, services and agents on this machine install a real package", Args: cobra.NoArgs,
		Long: `Starts an embedded broker, every service, and agents that enrol by a token and install into throwaway
directories; publishes a package, deploys it, shows what happens, and ends by itself: with 0 only if every
agent succeeded. Everything is as in a real fleet, with TLS, an identity for everybody, and signatures. Needs
no root, no network and no configuration, and leaves nothing behind.

This demonstration keeps all keys beside the services. A real fleet does not.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd) },
	}
	cmd.Flags().IntVar(&d.agents, "agents", 3, "how many agents, 1 to 50")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave everything running until interrupted, to look around")
	return cmd
}

// demoResult is what -o json prints.
type demoResult struct {
	Agents  int                    `json:"agents"`
	Jobs    map[events.State]int64 `json:"jobs"`
	Events  map[string]int         `json:"events"`
	Seconds float64                `json:"seconds"`
}

func (d *demo) run(cmd *cobra.Command) (err error) {
	if err := d.only(formTable, formJSON, formYAML); err != nil {
		return err
	}
	if d.agents < 1 || d.agents > 50 {
		return fmt.Errorf("--agents %d: between 1 and 50", d.agents)
	}
	d.started, d.out = d.now(), cmd.OutOrStdout()
	if d.output != formTable {
		d.out = cmd.ErrOrStderr()
	}
	if d.dir, err = os.MkdirTemp("", "chandler-demo-"); err != nil {
		return fmt.Errorf("make a directory for the demonstration: %w", err)
	}
	defer os.RemoveAll(d.dir)
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if err := d.start(ctx); err != nil {
		return err
	}
	agents, err := startDemoAgents(ctx, d)
	if err != nil {
		return errors.Join(err, d.server.close())
	}
	result, err := d.play(ctx)
	if err == nil {
		err = d.tell(cmd, result)
	}
	if err == nil && d.keep {
		err = d.stay(cmd)
	}
	d.client.bus.Conn().Close()
	cancel()
	return errors.Join(err, agents.wait(), d.server.close())
}

// start brings up the broker and every service, with identities and certificates of their own.
func (d *demo) start(ctx context.Context) error {
	log, err := daemon.NewLogger(os.Stderr, daemon.LogConfig{Level: "error"})
	if err != nil {
		return err
	}
	at := place{filepath.Join(d.dir, "server")}
	if err := os.MkdirAll(at.data, 0o700); err != nil {
		return err
	}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		return err
	}
	fleet, err := readFleet(at.identity())
	if err != nil {
		return err
	}
	const anyPort = "127.0.0.1:0"
	shown, err := tlsFlags{on: true}.certificate(at, at.administrator(), namesOf([]string{anyPort}, ""), d.now())
	if err != nil {
		return err
	}
	d.server, err = startServer(ctx, serverOptions{Data: at.data, Identity: at.identity(), Listen: anyPort, HTTP: anyPort, Metrics: anyPort, TLS: shown.config, Services: services(), Replicas: 1, Log: log})
	if err != nil {
		return err
	}
	d.step("broker and services are up, with TLS: %s, metrics https://%s/metrics", d.server.URL, d.server.Metrics)
	where := connection{Name: "demo", Server: shown.reached(d.server.URL), Caller: defaultCaller, Fleet: fleet.Fleet, CA: shown.ca, Administrator: at.administrator(),
		Credentials: filepath.Join(at.administrator(), adminCreds)}
	if d.client, err = dial(where, d.timeout); err != nil {
		return errors.Join(err, d.server.close())
	}
	if err := d.beginTrust(ctx, fleet.Fleet); err != nil {
		d.client.bus.Conn().Close()
		return errors.Join(err, d.server.close())
	}
	return nil
}

// beginTrust makes the keys that agents trust, as trust init.
func (d *demo) beginTrust(ctx context.Context, fleet string) error {
	bundle, err := d.app.beginTrust(ctx, d.client, trustPlan{dir: filepath.Join(d.dir, "trust"), fleet: fleet, roots: 3, rootsNeeded: 2, deployersNeeded: 1, name: "demo", now: d.now()})
	if err != nil {
		return err
	}
	d.step("fleet %s trusts its keys: %s, %s (kept here beside the services; a real fleet's are not)", fleet, plural(len(bundle.Roots.Keys), "root", "roots"), plural(len(bundle.Keys), "deployer", "deployers"))
	return nil
}

// signer is the demonstration's own: its key is not encrypted.
func (d *demo) signer(ctx context.Context) (signer, error) {
	return d.app.signer(ctx, d.client, &asking{app: d.app})
}

// play is the administrator's part: publish, collect, deploy, watch.
func (d *demo) play(ctx context.Context) (demoResult, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	if err := d.publish(ctx); err != nil {
		return demoResult{}, err
	}
	if err := d.awaitAgents(ctx); err != nil {
		return demoResult{}, err
	}
	collection := events.Collection{Name: "everybody", Expression: `agent.hostname.startsWith("demo-")`}
	if _, err := ask(ctx, d.client, events.CollectionSet, collection); err != nil {
		return demoResult{}, err
	}
	d.step("collection %s: %s", collection.Name, collection.Expression)
	if err := d.deploy(ctx); err != nil {
		return demoResult{}, err
	}
	counts, err := d.follow(ctx)
	if err != nil {
		return demoResult{}, err
	}
	seen, err := d.countEvents(ctx)
	return demoResult{Agents: d.agents, Jobs: counts.States, Events: seen, Seconds: float64(d.now().Sub(d.started).Milliseconds()) / 1000}, err
}

func (d *demo) publish(ctx context.Context) error {
	dir, err := makeDemoPackage(ctx, filepath.Join(d.dir, "package"))
	if err != nil {
		return fmt.Errorf("make the package: %w", err)
	}
	s, err := d.signer(ctx)
	if err != nil {
		return err
	}
	plan, err := publish.Read(ctx, dir, publish.Options{Now: d.now, Seal: s.seal})
	if err != nil {
		return err
	}
	web, err := d.client.web()
	if err != nil {
		return err
	}
	published, err := publish.Upload(ctx, plan, contentServer{d.client}, web, func(int64, int64) {})
	if err != nil {
		return err
	}
	d.step("package %s@%s signed and published: %s, manifest %.12s", demoPackage, published.Manifest.Version, byteSize(published.Manifest.Size()), published.Digest)
	return nil
}

// awaitAgents waits until every agent has told its facts.
func (d *demo) awaitAgents(ctx context.Context) error {
	for {
		list, err := ask(ctx, d.client, events.AgentList, events.AgentQuery{})
		if err == nil && len(list.Agents) >= d.agents {
			d.step("%s have told their facts", plural(len(list.Agents), "agent", "agents"))
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return errors.Join(fmt.Errorf("the agents did not report: %w", ctx.Err()), err)
		}
	}
}

const demoDeployment = "hello-everybody"

func (d *demo) deploy(ctx context.Context) error {
	s, err := d.signer(ctx)
	if err != nil {
		return err
	}
	f := createFlags{packageRef: demoPackage, program: "install", to: "everybody", rerun: "if-failed", valid: "1d"}
	wanted, err := d.declaredByFlags(nil, demoDeployment, f)
	if err != nil {
		return err
	}
	p, err := d.proposeNamed(ctx, newLookups(d.client, s.trust), wanted, f)
	if err != nil {
		return err
	}
	if p.order.Revision, err = d.nextRevision(ctx, d.client, s, demoDeployment, false); err != nil {
		return err
	}
	if _, err := sendOrder(ctx, d.client, s, p, false); err != nil {
		return err
	}
	o := p.order
	d.step("deployment %s signed and sent: %s@%s/%s to %s, %s", o.Deployment, o.Package, o.Version, o.Program, o.Collection, plural(len(p.collection.Members), "machine", "machines"))
	return nil
}

// follow shows the deployment's counts until every job has ended.
func (d *demo) follow(ctx context.Context) (events.Progress, error) {
	last := ""
	for {
		view, err := look(ctx, d.client, demoDeployment)
		if err == nil {
			if line := d.watchLine(view); line != last {
				last = line
				d.step("%s", line)
			}
			if done, _ := watchOutcome(view); done && view.Progress != nil {
				return *view.Progress, nil
			}
		}
		if !pause(ctx, 50*time.Millisecond) {
			return events.Progress{}, errors.Join(fmt.Errorf("the deployment did not end: %w; last seen: %s", ctx.Err(), last), err)
		}
	}
}

// countEvents reads everything that was stored and counts it by type.
func (d *demo) countEvents(ctx context.Context) (map[string]int, error) {
	seen := map[string]int{}
	for _, stream := range []string{events.StreamEvents, events.StreamJobs, events.StreamStatus, events.StreamLogs} {
		err := d.client.read(ctx, reading{stream: stream}, func(m jetstream.Msg) error {
			if kind := m.Headers().Get("ce-type"); kind != "" {
				seen[kind]++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// tell prints the outcome; an error where not every agent succeeded.
func (d *demo) tell(cmd *cobra.Command, r demoResult) error {
	total := 0
	for _, n := range r.Events {
		total += n
	}
	d.step("%s of %s succeeded; %s events in %.1f s", count(r.Jobs[events.Succeeded]), plural(d.agents, "job", "jobs"), count(int64(total)), r.Seconds)
	if d.output == formTable {
		fmt.Fprintf(d.out, "\nThat was a signed order, %s, and every transition as a CloudEvent on NATS JetStream.\n", plural(d.agents, "offer", "offers"))
		if !d.keep {
			fmt.Fprintf(d.out, "Look next: %s demo --keep   then, in another terminal:\n", d.self)
			d.tellCommands()
		}
	} else if err := d.writeResult(cmd.OutOrStdout(), r); err != nil {
		return err
	}
	if r.Jobs[events.Succeeded] != int64(d.agents) || len(r.Jobs) != 1 {
		return fmt.Errorf("not every agent succeeded: %v", r.Jobs)
	}
	return nil
}

// writeResult is one JSON object on one line, or YAML.
func (d *demo) writeResult(w io.Writer, r demoResult) error {
	if d.output == formYAML {
		return writeData(w, d.output, r)
	}
	return json.NewEncoder(w).Encode(r)
}

func (d *demo) tellCommands() {
	fmt.Fprintf(d.out, "  %s --context demo job ls · job why JOB · why demo-1 · events tail · agent ls\n", d.self)
}

// stay keeps everything running until it is interrupted. Context "demo" leads there for as long.
func (d *demo) stay(cmd *cobra.Command) error {
	store, err := d.contexts()
	if err == nil {
		err = store.save(d.client.connection)
	}
	if err != nil {
		note(cmd.ErrOrStderr(), "no context was written: %v", err)
	} else {
		fmt.Fprintln(d.out, "Everything goes on running until you interrupt it (Ctrl-C). Look around in another terminal:")
		d.tellCommands()
	}
	<-cmd.Context().Done()
	if there, err := store.load(d.client.Name); err != nil || there != d.client.connection {
		return nil // none, or another demonstration's
	}
	return store.remove(d.client.Name)
}

// step tells one thing that happened, with the seconds since the start.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "%5.1fs  %s\n", d.now().Sub(d.started).Seconds(), printable(fmt.Sprintf(format, args...)))
}

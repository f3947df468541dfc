//go:build unix

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/order"
)

// plant is a machine on which programs really run: each writes its name into a file.
type plant struct {
	*machine
	ran  string
	dies int // at which look at the clock the agent dies; 0: never
	dead bool
}

func newPlant(t *testing.T) *plant {
	p := &plant{machine: newMachine(t), ran: filepath.Join(t.TempDir(), "ran")}
	var err error
	for name, r := range p.Runners {
		p.Runners[name] = mortal{r, p}
	}
	if p.executor, err = execute.New(execute.Options{Supervisor: supervisetest.Supervisor(), Runners: p.Runners}); err != nil {
		t.Fatal(err)
	}
	if p.detector, err = detect.New(detect.Options{Kinds: map[string]detect.Kind{detect.KindFile: detect.File{}}}); err != nil {
		t.Fatal(err)
	}
	p.facts.BootID = "boot 1"
	clock := p.Clock
	p.Clock = func() time.Time {
		if p.dies--; p.dies == 0 {
			p.dead = true
			runtime.Goexit()
		}
		return clock()
	}
	return p
}

// mortal looks at the clock between the journalled start of a program and its real one.
type mortal struct {
	execute.Runner
	*plant
}

func (m mortal) Prepare(ctx context.Context, r execute.Request) (execute.Prepared, error) {
	m.Clock()
	return m.Runner.Prepare(ctx, r)
}

// command writes a name, makes or removes a file for detection, and ends with an exit code.
func (p *plant) command(name, more string, code int) events.Command {
	return events.Command{Argv: []string{"/bin/sh", "-c", fmt.Sprintf("echo %s >> '%s'; %s exit %d", name, p.ran, more, code)}}
}

// mark is a file that a program makes to be detected by.
func (p *plant) mark(name string) string { return filepath.Join(filepath.Dir(p.ran), name) }

// step publishes the package of a step, whose program install is changed.
func (p *plant) step(pkg string, change func(*events.Program), more ...func(*events.Manifest, *order.Step)) order.Step {
	p.t.Helper()
	program := events.Program{Command: p.command(pkg, "", 0), Run: events.RunAdministrative}
	if change != nil {
		change(&program)
	}
	m := events.Manifest{API: manifest.API, Package: pkg, Version: "1", Programs: map[string]events.Program{"install": program}}
	s := order.Step{Why: order.StepFirst, Package: pkg, Version: "1", Program: "install"}
	for _, c := range more {
		c(&m, &s)
	}
	sealed, err := manifest.Seal(m, signer("pam"))
	if err != nil {
		p.t.Fatal(err)
	}
	s.Manifest, s.Run = events.DigestOf(sealed), m.Programs[s.Program].Run
	p.blobs[s.Manifest] = sealed
	return s
}

// order is what this job does, after steps.
func (p *plant) order(steps []order.Step, change ...func(*given)) *task {
	p.t.Helper()
	return p.offerOf("hello", steps, change...)
}

// offerOf is an offer of an order of that deployment.
func (p *plant) offerOf(name string, steps []order.Step, change ...func(*given)) *task {
	p.t.Helper()
	all := append([]func(*given){program(func(own *events.Program) { own.Command = p.command("own", "", 0) }), func(g *given) { g.order.First, g.order.Deployment = steps, name }}, change...)
	revision := uint64(0)
	t := p.offer(append(all, func(g *given) { revision = g.order.Revision })...)
	t.revision = revision
	t.job.Offer.Deployment, t.job.Offer.Revision, t.job.Offer.Job, t.deployment = name, t.revision, events.JobID(name, t.revision, p.id, 0, ""), name
	if err := p.journal.Keep(t.job); err != nil {
		p.t.Fatal(err)
	}
	return t
}

// carry takes a task as far as it goes, or until the agent dies; until ends it at a status, "": at none.
func (p *plant) carry(t *task, until events.State) events.JobStatus {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer stop()
	id, over := t.job.Offer.Job, make(chan struct{})
	go func() {
		defer close(over)
		t.carryOut(ctx)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			if ctx.Err() != nil {
				p.t.Fatalf("it is %s", p.kept(id).Last.State)
			}
			return p.kept(id).Last
		case <-tick.C:
			if last := p.kept(id).Last; until != "" && last.State == until {
				stop()
				<-over
				return last
			}
		}
	}
}

// again is the agent's next process.
func (p *plant) again() *task {
	p.t.Helper()
	p.slots, p.restarts, p.dies = newSlots(1), map[string]awaited{}, 0
	tasks, err := p.recall()
	if err != nil || len(tasks) != 1 {
		p.t.Fatalf("%d jobs go on, %v", len(tasks), err)
	}
	return tasks[0]
}

// runs are the programs that ran, in order.
func (p *plant) runs() string {
	text, err := os.ReadFile(p.ran)
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// past makes a program have ended so.
func (p *plant) past(pkg, program string, state events.State) {
	p.t.Helper()
	job := journal.Job{Offer: events.JobOffer{Job: "past-" + pkg + program}, Ran: true, Last: events.JobStatus{Package: pkg, Version: "1", Program: program, State: state}}
	if err := p.journal.Advance(job); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) lastRun(pkg, version, program string) events.State {
	p.t.Helper()
	state, err := p.journal.LastRun(journal.ProgramName{Package: pkg, Version: version, Program: program})
	if err != nil {
		p.t.Fatal(err)
	}
	return state
}

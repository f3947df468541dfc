package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"chandler/agent/fleet"
)

// A simulation runs as several processes, because open files and memory are counted by process. Each child is this same
// program. It is told what to be by one JSON object on its standard input, so that no secret is in arguments or
// environment, and after that single commands; it says what it has to say as JSON lines on its standard output; and it
// ends when its standard input does, so that none is left when the parent is killed.

// childCommand is one further thing that a child is told to do; it says Done with the same word when it has.
type childCommand struct {
	Do string `json:"do"`
}

// Commands of every child, and of those that hold agents.
const (
	doMeasure  = "measure"  // begin with the profiles, if any
	doMeasured = "measured" // end them
	doLeave    = "leave"    // agents that are to be away leave
	doReturn   = "return"   // and come back
	doCut      = "cut"      // break every connection; they come back by themselves
	doTell     = "tell"     // write down what happened here
)

// childWord is what a child says; one of its fields is set.
type childWord struct {
	Ready *childReady  `json:"ready,omitempty"`
	Stats *fleet.Stats `json:"stats,omitempty"`
	Done  string       `json:"done,omitempty"`
	Error string       `json:"error,omitempty"`
}

// childReady is what there is to know of a child that is up.
type childReady struct {
	URL     string            `json:"url,omitempty"`     // of a broker
	Members []simulatedMember `json:"members,omitempty"` // of a process of agents
	Journal string            `json:"journal,omitempty"` // the file system of their journals
}

// child is a process that this one started.
type child struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	words chan childWord // but stats
	done  chan struct{}  // closed when it has ended
	err   error          // why, after done

	expected atomic.Bool // its end

	mu    sync.Mutex
	stats fleet.Stats // the newest
}

// Times that children get.
const (
	childStartTime = 2 * time.Minute
	childStopTime  = 30 * time.Second
)

// startChild starts `simulate KIND` and tells it what to be. name is for people.
func startChild(name, kind string, told any, stderr io.Writer) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c := &child{name: name, cmd: exec.Command(self, "simulate", kind), words: make(chan childWord, 16), done: make(chan struct{})}
	c.cmd.Stderr = stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go c.listen(out)
	if err := json.NewEncoder(c.in).Encode(told); err != nil {
		return nil, errors.Join(fmt.Errorf("tell %s what to be: %w", name, err), c.stop())
	}
	return c, nil
}

// listen takes what the child says until it ends.
func (c *child) listen(out io.Reader) {
	defer close(c.done)
	in := json.NewDecoder(out)
	for {
		var w childWord
		if err := in.Decode(&w); err != nil {
			break
		}
		if w.Stats != nil {
			c.mu.Lock()
			c.stats = *w.Stats
			c.mu.Unlock()
			continue
		}
		if w.Error != "" {
			c.err = errors.New(w.Error)
		}
		select {
		case c.words <- w:
		default: // more than anybody awaits
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := c.cmd.Wait(); c.err == nil {
		c.err = err
	}
}

// await waits for the child's next word.
func (c *child) await(ctx context.Context) (childWord, error) {
	select {
	case w := <-c.words:
		if w.Error != "" {
			return w, fmt.Errorf("%s: %s", c.name, w.Error)
		}
		return w, nil
	case <-c.done:
		return childWord{}, c.ended()
	case <-ctx.Done():
		return childWord{}, fmt.Errorf("wait for %s: %w", c.name, context.Cause(ctx))
	}
}

// ended says that the child is gone, after done.
func (c *child) ended() error {
	if c.err != nil {
		return fmt.Errorf("%s ended: %w", c.name, c.err)
	}
	return fmt.Errorf("%s ended", c.name)
}

// ready waits until the child is up.
func (c *child) ready(ctx context.Context) (childReady, error) {
	ctx, cancel := context.WithTimeout(ctx, childStartTime)
	defer cancel()
	w, err := c.await(ctx)
	if err != nil {
		return childReady{}, err
	}
	if w.Ready == nil {
		return childReady{}, fmt.Errorf("%s does not say that it is ready", c.name)
	}
	return *w.Ready, nil
}

// do tells the child to do something and waits until it has.
func (c *child) do(ctx context.Context, what string) error {
	if err := json.NewEncoder(c.in).Encode(childCommand{what}); err != nil {
		return fmt.Errorf("tell %s to %s: %w", c.name, what, err)
	}
	w, err := c.await(ctx)
	if err == nil && w.Done != what {
		err = fmt.Errorf("%s was told to %s and did something else", c.name, what)
	}
	return err
}

// stop ends the child: it is asked to, and killed after a while.
func (c *child) stop() error {
	if c == nil {
		return nil
	}
	c.expected.Store(true)
	_ = c.in.Close() // an error says that it is closed
	select {
	case <-c.done:
		return nil
	case <-time.After(childStopTime):
	}
	err := c.cmd.Process.Kill()
	<-c.done
	return errors.Join(fmt.Errorf("%s did not stop within %s and was killed", c.name, childStopTime), err)
}

// kill ends the child at once: kill -9.
func (c *child) kill() error {
	c.expected.Store(true)
	err := c.cmd.Process.Kill()
	<-c.done
	return err
}

// stopAll ends several children at the same time.
func stopAll(children []*child) error {
	errs := make([]error, len(children))
	var wg sync.WaitGroup
	for i, c := range children {
		wg.Go(func() { errs[i] = c.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// doAll lets several children do something at the same time.
func doAll(ctx context.Context, children []*child, what string) error {
	errs := make([]error, len(children))
	var wg sync.WaitGroup
	for i, c := range children {
		wg.Go(func() { errs[i] = c.do(ctx, what) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Package local is where the users of a machine ask its agent: what they may start, and to start it.
//
// The agent listens on a socket that every user of the machine can connect to. A request is one line of JSON, the answer
// another. Who asks is what the kernel says of the process that connected, never what the request says. Nothing can be
// started that was not signed by a deployer and offered to this machine: a request only says now.
//
// # Under failure
//
// Requests are bounded in size, time, number at once and number per user and minute; what breaks a bound is answered with a
// refusal, or cut off. A socket that an ended agent left is taken over, one that a running agent answers on is not. An
// agent without a socket still does everything but listen to users.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Item is something that a local user may start.
type Item struct {
	Deployment string    `json:"deployment"`
	Package    string    `json:"package"`
	Version    string    `json:"version"`
	Program    string    `json:"program"`
	Publisher  string    `json:"publisher,omitempty"`
	Category   string    `json:"category,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Starts     time.Time `json:"starts,omitzero"` // when it starts by itself; zero: nobody knows, or never
	Until      time.Time `json:"until,omitzero"`  // when it cannot be started any more
}

// Caller is a user of this machine who asks.
type Caller struct {
	Name string // as the machine names the user; the number where it has no name
	Root bool   // administers the machine
	id   string // one for each user
}

// Bounds of what is said.
const (
	maxRequest = 4 << 10 // bytes
	maxAnswer  = 1 << 20
	maxName    = 256 // bytes of what a request names
)

// Verbs of requests.
const (
	verbList  = "list"
	verbStart = "start"
)

type request struct {
	Verb string `json:"verb"`
	Name string `json:"name,omitempty"` // of a deployment or a package, to start
}

type answer struct {
	Items   []Item `json:"items,omitempty"`
	Words   string `json:"words,omitempty"`   // what came of a start
	Refusal string `json:"refusal,omitempty"` // why nothing did
}

var errRequest = errors.New("a request that is none")

// parseRequest reads one line.
func parseRequest(line []byte) (r request, err error) {
	if len(line) > maxRequest {
		return r, errRequest
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return request{}, errRequest
	}
	if r.Verb != verbList && r.Verb != verbStart || len(r.Name) > maxName || (r.Verb == verbStart) != (r.Name != "") {
		return request{}, errRequest
	}
	return r, nil
}

// Refused is why the agent did not do what was asked, in its words.
type Refused struct{ Why string }

func (r *Refused) Error() string { return r.Why }

// patience is how long a client waits for its answer.
const patience = 30 * time.Second

// List asks the agent that listens at path what may be started.
func List(ctx context.Context, path string) ([]Item, error) {
	a, err := ask(ctx, path, request{Verb: verbList})
	return a.Items, err
}

// Start asks it to start a deployment, or the one deployment of a package, by name. words say what came of it; the error
// is a *Refused where the agent does not.
func Start(ctx context.Context, path, name string) (words string, err error) {
	if len(name) > maxName {
		return "", fmt.Errorf("a name of %d bytes: at most %d", len(name), maxName)
	}
	a, err := ask(ctx, path, request{Verb: verbStart, Name: name})
	return a.Words, err
}

func ask(ctx context.Context, path string, r request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dial(ctx, path)
	if err != nil {
		return a, fmt.Errorf("ask the agent of this machine: %w", err)
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		conn.SetDeadline(at)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return a, fmt.Errorf("ask the agent of this machine: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("hear the agent of this machine: %w", err)
	}
	if a.Refusal != "" {
		return answer{}, &Refused{a.Refusal}
	}
	return a, nil
}

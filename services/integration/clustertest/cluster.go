package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Options of a cluster.
type Options struct {
	Dir        string   // where configurations, logs and files go
	Command    []string // starts a broker ([RunBroker]); the file's name is appended
	Brokers    int      // 0: three
	Identity   Identity
	MaxPayload int32
	SyncAlways bool                     // each message is on the disk before it is acknowledged
	StoreDir   func(name string) string // of a broker; nil: below Dir
}

// Cluster is brokers that know each other by links.
type Cluster struct {
	Nodes []*Node
	links [][]*Link // from, to; nil to itself
}

// Node is one broker.
type Node struct {
	*Process
	Name, StoreDir, LogFile string
	Client, Monitor         string // host:port
}

// New reserves ports, writes the brokers' configurations and opens their links. It starts no broker. The caller closes it.
func New(o Options) (*Cluster, error) {
	if o.Brokers == 0 {
		o.Brokers = 3
	}
	ports, err := freePorts(3 * o.Brokers)
	if err != nil {
		return nil, err
	}
	c := &Cluster{links: make([][]*Link, o.Brokers)}
	for i := range o.Brokers {
		links := make([]*Link, o.Brokers)
		c.links[i] = links
		var peers []string
		for j := range o.Brokers {
			if j == i {
				continue
			}
			if links[j], err = NewLink("", address(ports[3*j+1])); err != nil {
				c.Close()
				return nil, err
			}
			peers = append(peers, links[j].Addr())
		}
		node, err := newNode(o, i, ports[3*i:], peers)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c, nil
}

func newNode(o Options, i int, ports []int, peers []string) (*Node, error) {
	name := fmt.Sprintf("broker-%d", i+1)
	dir := filepath.Join(o.Dir, name)
	n := &Node{Name: name, StoreDir: filepath.Join(dir, "store"), LogFile: filepath.Join(dir, name+".log"), Client: address(ports[0]), Monitor: address(ports[2])}
	if o.StoreDir != nil {
		n.StoreDir = o.StoreDir(name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of %s: %w", name, err)
	}
	data, err := json.Marshal(config{Name: name, Client: ports[0], Routes: ports[1], Monitor: ports[2], Peers: peers, StoreDir: n.StoreDir, Log: n.LogFile,
		MaxPayload: o.MaxPayload, SyncAlways: o.SyncAlways, Identity: o.Identity})
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", name, err)
	}
	file := filepath.Join(dir, "broker.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", name, err)
	}
	n.Process = &Process{Command: append(append([]string{}, o.Command...), file)}
	return n, nil
}

// Ports are taken from below those that systems give to outgoing connections: a broker must find its own free again when it
// comes back.
const firstPort, lastPort = 10000, 32000

// freePorts of loopback, which nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	for range 50 * n {
		port := firstPort + rand.IntN(lastPort-firstPort)
		listener, e := net.Listen("tcp", address(port))
		if e != nil {
			err = e
			continue
		}
		defer listener.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports: %w", n, err)
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Start starts every broker that does not run.
func (c *Cluster) Start() error {
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Close kills the brokers and closes their links.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, links := range c.links {
		for _, l := range links {
			if l != nil {
				l.Close()
			}
		}
	}
}

// Between sets the weather between two brokers as the first one sees it: forth is what it sends. It is the same for all
// their connections, whoever opened them.
func (c *Cluster) Between(a, b int, w Weather) {
	c.links[a][b].Set(w)
	w.Forth, w.Back = w.Back, w.Forth
	c.links[b][a].Set(w)
}

// Apart sets the weather between one broker and all others, as it sees it.
func (c *Cluster) Apart(one int, w Weather) {
	for other := range c.Nodes {
		if other != one {
			c.Between(one, other, w)
		}
	}
}

// Whole is nil when a broker runs, knows its leader, and all it keeps is up to date.
func (n *Node) Whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Monitor+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s for its health: %w", n.Name, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err != nil {
		return fmt.Errorf("ask %s for its health: %w", n.Name, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not whole: %s", n.Name, text)
	}
	return nil
}

// Whole is nil when all brokers are.
func (c *Cluster) Whole(ctx context.Context) error {
	var all []error
	for _, n := range c.Nodes {
		all = append(all, n.Whole(ctx))
	}
	return errors.Join(all...)
}

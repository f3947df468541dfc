package machinetest

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// bootTimeout is how long a machine may take to start all its services, after it has ended them if it restarts.
const bootTimeout = 2 * time.Minute

// boots counts how often a machine has started, by what systemd-nspawn tells.
type boots struct {
	mu      sync.Mutex
	count   int
	systemd string        // process id of the machine's systemd, seen from here
	next    chan struct{} // closed at the next boot; nil: nobody waits
	over    bool          // there will be none
}

// listen counts until nobody is left to notify.
func (b *boots) listen(notify *net.UnixConn) {
	buf := make([]byte, 4096)
	leader := ""
	for {
		n, err := notify.Read(buf)
		if err != nil {
			b.tell(func() { b.over = true })
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch {
			case key == "X_NSPAWN_LEADER_PID":
				leader = value
			case key == "READY" && leader != "":
				b.tell(func() { b.count++; b.systemd = leader })
				leader = ""
			}
		}
	}
}

func (b *boots) tell(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

func (b *boots) leader() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.systemd
}

// await waits until the machine has booted so many times.
func (b *boots) await(count int) error {
	limit := time.NewTimer(bootTimeout)
	defer limit.Stop()
	for {
		b.mu.Lock()
		if b.count >= count {
			b.mu.Unlock()
			return nil
		}
		if b.over {
			b.mu.Unlock()
			return fmt.Errorf("it ended after %d boots", b.count)
		}
		if b.next == nil {
			b.next = make(chan struct{})
		}
		next := b.next
		b.mu.Unlock()
		select {
		case <-next:
		case <-limit.C:
			return fmt.Errorf("it did not boot within %s", bootTimeout)
		}
	}
}

// Boots counts how often the machine has started, from 1.
func (m *Machine) Boots() int {
	m.boots.mu.Lock()
	defer m.boots.mu.Unlock()
	return m.boots.count
}

// AwaitBoot waits until the machine has started so many times, by itself or because a program in it asked for
// it, and all its services have started again. Files are those of before, apart from those in memory.
func (m *Machine) AwaitBoot(count int) {
	m.t.Helper()
	if err := m.boots.await(count); err != nil {
		m.t.Fatalf("boot %d of machine %s: %v", count, m.Name, err)
	}
}

// Reboot restarts the machine in order and waits until it is back.
func (m *Machine) Reboot() {
	m.t.Helper()
	before := m.Boots()
	m.Exec("systemctl", "--no-block", "reboot")
	m.AwaitBoot(before + 1)
}

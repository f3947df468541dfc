package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFactsThatCannotBeReadAreNamedAndTheOthersKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		give := func(value string) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { return value, nil }
		}
		kernel := func(f *Facts) *string { return &f.Kernel }
		ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
		defer cancel()
		start := time.Now()
		facts := Facts{OS: "linux"}
		collect(ctx, &facts, []part{
			{"kernel", text(give("6.1"), kernel)},
			{"zone", text(give(""), func(f *Facts) *string { return &f.Zone })},
			{"boot_id", text(func(context.Context) (string, error) { return "x", errors.New("no /proc") }, func(f *Facts) *string { return &f.BootID })},
			{"memory", func(context.Context) (func(*Facts), error) {
				<-release // a system that hangs, whatever the context says
				return func(f *Facts) { f.MemoryBytes = 1 }, nil
			}},
		})
		if took := time.Since(start); took != timeLimit {
			t.Errorf("it took %v, want %v", took, timeLimit)
		}
		want := Facts{OS: "linux", Kernel: "6.1", Incomplete: []string{
			"boot_id: no /proc", "memory: no answer in time", "zone: the system does not say",
		}}
		close(release)
		synctest.Wait() // the late part comes to its end, and changes nothing
		if diff := cmp.Diff(want, facts); diff != "" {
			t.Errorf("facts (-want +got):\n%s", diff)
		}
	})
}

func TestFactsOfThisMachine(t *testing.T) {
	facts, err := Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	missing := func(name string) bool {
		return slices.ContainsFunc(facts.Incomplete, func(s string) bool { return strings.HasPrefix(s, name+": ") })
	}
	// Whatever is not there must be named, and the other way round.
	for name, empty := range map[string]bool{
		"os": facts.OSName == "", "kernel": facts.Kernel == "", "hostname": facts.Hostname == "", "zone": facts.Zone == "",
		"machine_id": facts.MachineID == "", "boot_id": facts.BootID == "", "boot_time": facts.BootTime.IsZero(), "memory": facts.MemoryBytes == 0,
	} {
		if empty != missing(name) {
			t.Errorf("%s: empty is %v, incomplete says %q", name, empty, facts.Incomplete)
		}
	}
	if facts.OS != runtime.GOOS || facts.Arch == "" {
		t.Errorf("OS %q, architecture %q", facts.OS, facts.Arch)
	}
	if facts.MemoryBytes < 1<<20 || facts.BootTime.After(time.Now()) {
		t.Errorf("memory %d, boot time %v", facts.MemoryBytes, facts.BootTime)
	}
	for _, a := range facts.Addresses {
		if ip, err := netip.ParseAddr(a); err != nil || ip.IsLoopback() {
			t.Errorf("address %q: %v", a, err)
		}
	}
	again, err := Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{facts.MachineID, facts.BootID}, []string{again.MachineID, again.BootID}); diff != "" {
		t.Errorf("ids change from one reading to the next:\n%s", diff)
	}
}

func TestCollectEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Collect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestFreeBytes(t *testing.T) {
	free, err := FreeBytes(t.TempDir())
	if err != nil || free <= 0 {
		t.Errorf("got %d, %v", free, err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := FreeBytes(gone); err == nil || !strings.Contains(err.Error(), gone) {
		t.Errorf("a path that does not exist: %v", err)
	}
}

func TestArchitecturesHaveGosNames(t *testing.T) {
	for kernel, want := range map[string]string{
		"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i686": "386", "armv7l": "arm", "riscv64": "riscv64", "AMD64": "amd64",
	} {
		if got := goArch(kernel); got != want {
			t.Errorf("%s is %s, want %s", kernel, got, want)
		}
	}
}

func TestUsableAddresses(t *testing.T) {
	network := func(cidr string) net.Addr {
		ip, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	got := usable([]net.Addr{
		network("192.0.2.17/24"), network("2001:db8::1/64"), network("fe80::1/64"), network("127.0.0.1/8"), network("::1/128"),
		network("10.0.0.2/8"), network("192.0.2.17/32"), network("169.254.1.1/16"), network("0.0.0.0/0"), &net.UnixAddr{Name: "x"},
	})
	if diff := cmp.Diff([]string{"10.0.0.2", "192.0.2.17", "2001:db8::1"}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	var many []net.Addr
	for i := range 200 {
		many = append(many, &net.IPNet{IP: net.IPv4(10, 0, 0, byte(i))})
	}
	if n := len(usable(many)); n != maxAddresses {
		t.Errorf("%d addresses of 200 are kept, want %d", n, maxAddresses)
	}
}

// book is a resolver that knows some names, and fails with err for others.
type book struct {
	addresses, names map[string][]string
	err              error
}

func (b book) LookupHost(_ context.Context, host string) ([]string, error) {
	if a, ok := b.addresses[host]; ok {
		return a, nil
	}
	return nil, b.err
}

func (b book) LookupAddr(_ context.Context, address string) ([]string, error) {
	if n, ok := b.names[address]; ok {
		return n, nil
	}
	return nil, b.err
}

func TestTheDomainOfAHost(t *testing.T) {
	unknown := &net.DNSError{IsNotFound: true}
	away := &net.DNSError{IsTimeout: true}
	tests := []struct {
		name, host string
		names      book
		want       string
		fails      bool
	}{
		{"a qualified name has it", "WS-1.Example.COM.", book{err: away}, "example.com", false},
		{"the hosts file's first name may be the qualified one", "ws-1",
			book{addresses: map[string][]string{"ws-1": {"127.0.1.1"}}, names: map[string][]string{"127.0.1.1": {"ws-1.example.com", "ws-1"}}}, "example.com", false},
		{"the names of other hosts do not count", "ws-1",
			book{addresses: map[string][]string{"ws-1": {"127.0.0.1", "192.0.2.1"}}, names: map[string][]string{"127.0.0.1": {"localhost", "ws-10.example.org"}, "192.0.2.1": {"ws-1.example.com."}}}, "example.com", false},
		{"a placeholder is no domain", "ws-1",
			book{addresses: map[string][]string{"ws-1": {"127.0.0.1"}}, names: map[string][]string{"127.0.0.1": {"ws-1.localdomain"}}}, "", false},
		{"a host that nobody knows has none", "ws-1", book{err: unknown}, "", false},
		{"an address without a name is no failure", "ws-1", book{addresses: map[string][]string{"ws-1": {"192.0.2.1"}}, err: unknown}, "", false},
		{"a name server that is away is one", "ws-1", book{err: away}, "", true},
		{"also for the way back", "ws-1", book{addresses: map[string][]string{"ws-1": {"192.0.2.1"}}, err: away}, "", true},
		{"no name has no domain", "", book{err: away}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := qualify(t.Context(), tt.host, tt.names)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("got %q, %v, want %q, failing %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestIdsDependOnPurposeAndOrderAndHideTheirMarks(t *testing.T) {
	ids := []string{hashed("machine", "a", "b"), hashed("boot", "a", "b"), hashed("machine", "b", "a"), hashed("machine", "ab")}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 4 {
		t.Errorf("ids are not distinct: %v", ids)
	}
	if a, b := hashed("machine", "ABC "), hashed("machine", "abc"); a != b || len(a) != 32 {
		t.Errorf("ids %s and %s, want one of 32 digits", a, b)
	}
}

func writeFiles(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

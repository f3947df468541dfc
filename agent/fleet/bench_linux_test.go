package fleet

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
)

var benchMembers = flag.Int("members", 2000, "light agents of the benchmarks")

// serveBench makes this binary the broker and execution of a benchmark, so that their memory and time are not the fleet's.
var serveBench = flag.Bool("serve-bench", false, "serve a benchmark of this package: for itself only")

func TestServeBench(t *testing.T) {
	if !*serveBench {
		t.Skip("this is the other process of the benchmarks, which they start themselves")
	}
	r := newRig(t, 1)
	fmt.Printf("ready %s\n", r.broker.URL())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		offer := r.signed(func(o *order.Order) { o.Deployment, o.Package = commands.Text(), commands.Text() })
		for _, m := range members(*benchMembers) {
			r.offer(m.ID, offer)
		}
	}
}

// benchService is that other process.
type benchService struct {
	url      string
	commands io.Writer
}

func startBenchService(b *testing.B) benchService {
	b.Helper()
	c := exec.Command(os.Args[0], "-test.run", "^TestServeBench$", "-serve-bench", fmt.Sprintf("-members=%d", *benchMembers))
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = c.Wait() // its tests are those of the other process
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if url, ready := strings.CutPrefix(lines.Text(), "ready "); ready {
			go io.Copy(io.Discard, out)
			return benchService{url, in}
		}
	}
	b.Fatal("the broker of the benchmark did not start")
	return benchService{}
}

// benchFleet runs a fleet until all have been told what is outstanding.
func benchFleet(b *testing.B, observe func(Observation)) (*Fleet, benchService) {
	b.Helper()
	s := startBenchService(b)
	store, err := journal.Open(filepath.Join(b.TempDir(), "journal.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	r := &rig{t: b, store: store, bundle: bundle(1, "ada")}
	r.options = Options{Servers: []string{s.url}, Store: store, Trust: r.trust, Members: members(*benchMembers), ConnectRate: 2000, Observe: observe}
	r.run()
	return r.fleet, s
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it is asked as the manual says
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentBytes is the memory of this process.
func residentBytes(b *testing.B) float64 {
	b.Helper()
	runtime.GC()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("the memory of a process is read in /proc")
	}
	var size, resident float64
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * float64(os.Getpagesize())
}

// BenchmarkIdleMember tells what a member costs that is connected and has nothing to do.
func BenchmarkIdleMember(b *testing.B) {
	for b.Loop() {
		memory, goroutines, began := residentBytes(b), runtime.NumGoroutine(), cpu()
		f, _ := benchFleet(b, nil)
		n := float64(len(f.all))
		b.ReportMetric((residentBytes(b)-memory)/n, "B/member")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/member")
		b.ReportMetric(float64((cpu()-began).Microseconds())/n, "cpu-us/start")
	}
}

// BenchmarkJob tells what a job costs the process that holds the members: offer, order, verification, journal, three
// statuses.
func BenchmarkJob(b *testing.B) {
	var stored atomic.Int64
	n, round, all := int64(*benchMembers), int64(0), make(chan struct{}, 1)
	_, s := benchFleet(b, func(o Observation) {
		if o.What == StatusStored && o.State == events.Succeeded && stored.Add(1)%n == 0 {
			all <- struct{}{}
		}
	})
	began := cpu()
	for b.Loop() {
		round++
		fmt.Fprintf(s.commands, "d%d\n", round)
		<-all
	}
	jobs := float64(n * round)
	b.ReportMetric(float64((cpu()-began).Microseconds())/jobs, "cpu-us/job")
	b.ReportMetric(0, "ns/op")
}

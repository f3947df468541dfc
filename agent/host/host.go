// Package host reads the facts of the machine that the agent runs on.
//
// A fact that cannot be read in time is left empty and named in
// Facts.Incomplete; the others are there all the same. Collect returns within its
// time limit even if the system hangs, and then leaves a goroutine behind that
// waits for it.
package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	gopsutil "github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"
)

// Facts of a machine. An empty field is unknown or, for Domain, possibly none.
type Facts struct {
	OS        string // linux, windows or darwin
	OSName    string // debian; "Microsoft Windows Server 2025 Standard"; darwin
	OSVersion string // 12.7
	Kernel    string
	Arch      string // of the machine in Go's words, also if the agent is built for another: amd64, arm64
	Hostname  string // lower case, without the domain
	Domain    string // lower case; the rest of the fully qualified name
	Zone      string // IANA name of the time zone
	// Addresses are those of interfaces that are up, sorted, without loopback and
	// link-local ones, at most 64.
	Addresses []string
	// MachineID stays the same for the life of an installed system and differs on
	// a copy that was given an identity of its own. It is a hash, and says nothing
	// else. On Linux it takes in the hardware's id if the agent may read that, so it
	// is another one for root than for a user.
	MachineID string
	// BootID differs after every restart, and only then. In a container it is the
	// container's start that counts.
	BootID      string
	BootTime    time.Time // to the second, and only as right as the clock
	MemoryBytes int64
	// DomainController is what Windows says of itself; elsewhere false.
	DomainController bool
	Incomplete       []string // "domain: why", sorted
}

const (
	timeLimit    = 10 * time.Second
	lookupLimit  = 3 * time.Second // a name server that is away must not use up the time of the rest
	maxAddresses = 64
)

// part reads some of the facts and returns what puts them into place. It must
// not touch Facts itself: nobody waits for it after the time limit.
type part struct {
	name string
	read func(context.Context) (func(*Facts), error)
}

// Collect reads all facts. It takes ten seconds at most. The error is ctx's, if
// that is done before.
func Collect(ctx context.Context) (Facts, error) {
	facts := Facts{OS: runtime.GOOS, Arch: runtime.GOARCH, DomainController: domainController()}
	limited, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	collect(limited, &facts, parts())
	if err := ctx.Err(); err != nil {
		return Facts{}, fmt.Errorf("collect machine facts: %w", err)
	}
	return facts, nil
}

func parts() []part {
	return []part{
		{"os", readOS},
		{"kernel", text(gopsutil.KernelVersionWithContext, func(f *Facts) *string { return &f.Kernel })},
		{"arch", readArch},
		{"hostname", readHostname},
		{"domain", readDomain},
		{"addresses", readAddresses},
		{"zone", text(timeZone, func(f *Facts) *string { return &f.Zone })},
		{"machine_id", text(readMachineID, func(f *Facts) *string { return &f.MachineID })},
		{"boot_id", text(bootID, func(f *Facts) *string { return &f.BootID })},
		{"boot_time", readBootTime},
		{"memory", readMemory},
	}
}

// collect reads the parts side by side and puts into place what comes in time.
func collect(ctx context.Context, facts *Facts, parts []part) {
	type answer struct {
		index int
		place func(*Facts)
		err   error
	}
	answers := make(chan answer, len(parts)) // a late part finds room and goes away
	for i, p := range parts {
		go func() {
			place, err := p.read(ctx)
			answers <- answer{i, place, err}
		}()
	}
	errs := make([]error, len(parts))
	for i := range errs {
		errs[i] = errors.New("no answer in time")
	}
	for pending, late := len(parts), false; pending > 0 && !late; pending-- {
		select {
		case a := <-answers:
			if errs[a.index] = a.err; a.err == nil {
				a.place(facts)
			}
		case <-ctx.Done():
			late = true
		}
	}
	for i, err := range errs {
		if err != nil {
			facts.Incomplete = append(facts.Incomplete, parts[i].name+": "+err.Error())
		}
	}
	slices.Sort(facts.Incomplete)
}

// text makes a part of what reads one string, which must not be empty.
func text(read func(context.Context) (string, error), field func(*Facts) *string) func(context.Context) (func(*Facts), error) {
	return func(ctx context.Context) (func(*Facts), error) {
		value, err := read(ctx)
		if err == nil && value == "" {
			err = errors.New("the system does not say")
		}
		return func(f *Facts) { *field(f) = value }, err
	}
}

func readOS(ctx context.Context) (func(*Facts), error) {
	name, _, version, err := gopsutil.PlatformInformationWithContext(ctx)
	if err == nil && name == "" {
		err = errors.New("the system does not say")
	}
	return func(f *Facts) { f.OSName, f.OSVersion = name, version }, err
}

func readArch(context.Context) (func(*Facts), error) {
	arch, err := gopsutil.KernelArch()
	return func(f *Facts) { f.Arch = goArch(arch) }, err
}

// goArch translates a kernel's name of an architecture.
func goArch(kernel string) string {
	switch arch := strings.ToLower(kernel); arch {
	case "x86_64", "x64":
		return "amd64"
	case "aarch64", "aarch64_be":
		return "arm64"
	case "i386", "i486", "i586", "i686", "x86":
		return "386"
	case "armv5l", "armv5tel", "armv6l", "armv7l", "armv8l":
		return "arm"
	case "loongarch64":
		return "loong64"
	default:
		return arch
	}
}

func readHostname(context.Context) (func(*Facts), error) {
	name, err := os.Hostname()
	host, _ := splitName(name)
	if err == nil && host == "" {
		err = errors.New("the system does not say")
	}
	return func(f *Facts) { f.Hostname = host }, err
}

func readDomain(ctx context.Context) (func(*Facts), error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	domain, err := systemDomain(ctx)
	return func(f *Facts) { f.Domain = domain }, err
}

func readAddresses(context.Context) (func(*Facts), error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var up []net.Addr
	var errs []error
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := i.Addrs()
		errs = append(errs, err) // it may have gone since
		up = append(up, addresses...)
	}
	if len(up) == 0 {
		return func(*Facts) {}, errors.Join(errs...)
	}
	list := usable(up)
	return func(f *Facts) { f.Addresses = list }, nil
}

// usable sorts out the addresses under which others may know this machine.
func usable(addresses []net.Addr) []string {
	var ips []netip.Addr
	for _, a := range addresses {
		network, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(network.IP)
		if ip = ip.Unmap(); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsUnspecified() {
			ips = append(ips, ip)
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	ips = slices.Compact(ips)
	var list []string
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		list = append(list, ip.String())
	}
	return list
}

func readMachineID(ctx context.Context) (string, error) {
	parts, err := machineMarks(ctx)
	if err != nil {
		return "", err
	}
	return hashed("machine", parts...), nil
}

// hashed makes an id of marks of the system, which are not for others to see:
// machine-id(5) asks for that. Order counts.
func hashed(purpose string, marks ...string) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "chandler %s\x00", purpose)
	for _, mark := range marks {
		fmt.Fprintf(sum, "%s\x00", strings.ToLower(strings.TrimSpace(mark)))
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

func readBootTime(ctx context.Context) (func(*Facts), error) {
	seconds, err := gopsutil.BootTimeWithContext(ctx)
	if err == nil && seconds == 0 {
		err = errors.New("the system does not say")
	}
	return func(f *Facts) { f.BootTime = time.Unix(int64(seconds), 0) }, err
}

func readMemory(ctx context.Context) (func(*Facts), error) {
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, err
	}
	return func(f *Facts) { f.MemoryBytes = int64(memory.Total) }, nil
}

// FreeBytes returns how much the agent may still write to the file system that
// holds path, which must exist.
func FreeBytes(path string) (int64, error) {
	usage, err := disk.Usage(path)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(usage.Free), nil
}

// SystemVolume is the root of the file system that the operating system is on.
func SystemVolume() string { return systemVolume() }

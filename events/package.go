package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// BlockSize is the size of the blocks whose digests a manifest lists; the last block of a file is shorter.
const BlockSize = 4 << 20

// Manifest is a published package: its files and its programs. Its digest (SHA-256 of its stored bytes)
// names the package in signed orders, so that an agent runs exactly what was published.
type Manifest struct {
	API       string `json:"api"` // "chandler/v1"
	Package   string `json:"package"`
	Version   string `json:"version"`
	Publisher string `json:"publisher,omitempty"`
	Comment   string `json:"comment,omitempty"`
	// Source is the folder of an external source that the files are read from, instead of from distribution points: an
	// address as package resource writes it, to which a file's path is added.
	Source   string             `json:"source,omitempty"`
	Files    []File             `json:"files,omitempty"` // sorted by path; pinned, wherever they are read from
	Programs map[string]Program `json:"programs"`
	// Supersedes are the packages that this one takes the place of.
	Supersedes []Supersede `json:"supersedes,omitempty"`
	Category   string      `json:"category,omitempty"` // for people who choose from what is available
	Published  time.Time   `json:"published"`
}

// File is one file of a package, by its slash-separated path below the package's directory.
type File struct {
	Path   string   `json:"path"`
	Size   int64    `json:"size"`
	Mode   uint32   `json:"mode"` // permission bits
	SHA256 string   `json:"sha256"`
	Blocks []string `json:"blocks,omitempty"` // SHA-256 of each BlockSize block; absent where the file is one block
	// Source is the address of this one file on an external source, where it is not below the manifest's: a program
	// whose command is an external reference has one.
	Source string `json:"source,omitempty"`
}

// Size of all files in bytes.
func (m Manifest) Size() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// DigestOf is the SHA-256 of data as lower-case hexadecimal digits.
func DigestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// RunMode says with whose rights a program runs. It has no default: the administrator must choose.
type RunMode string

// The run modes.
const (
	RunUser           RunMode = "user"
	RunAdministrative RunMode = "administrative"
)

// Program is one command of a package and the conditions under which it runs, as written in package.yaml
// and kept in the manifest.
type Program struct {
	Command             Command        `json:"command" yaml:"command"`
	Shell               string         `json:"shell,omitempty" yaml:"shell,omitempty"` // sh, cmd or powershell: the command is a line for it
	Run                 RunMode        `json:"run" yaml:"run"`
	Logon               string         `json:"logon,omitempty" yaml:"logon,omitempty"`           // user, none or any; see [Program.LogonNeeded]
	EveryUser           bool           `json:"every-user,omitempty" yaml:"every-user,omitempty"` // once for every user who logs on; with logon: user
	WorkingDirectory    string         `json:"working-directory,omitempty" yaml:"working-directory,omitempty"`
	Environment         []string       `json:"environment,omitempty" yaml:"environment,omitempty"`   // NAME=value; never secrets
	MaxRunTime          Duration       `json:"max-run-time,omitempty" yaml:"max-run-time,omitempty"` // 0: 120 minutes
	OnTimeout           string         `json:"on-timeout,omitempty" yaml:"on-timeout,omitempty"`     // kill or stop-monitoring
	Interactive         bool           `json:"interactive,omitempty" yaml:"interactive,omitempty"`
	Writable            bool           `json:"writable,omitempty" yaml:"writable,omitempty"`
	InstallationAccount string         `json:"installation-account,omitempty" yaml:"installation-account,omitempty"`
	References          []Reference    `json:"references,omitempty" yaml:"references,omitempty"`
	AppliesIf           string         `json:"applies-if,omitempty" yaml:"applies-if,omitempty"` // CEL over the machine's facts
	Detect              []Detect       `json:"detect,omitempty" yaml:"detect,omitempty"`
	ReturnCodes         map[int]string `json:"return-codes,omitempty" yaml:"return-codes,omitempty"` // success, failure, soft-reboot, hard-reboot, retry
	After               string         `json:"after,omitempty" yaml:"after,omitempty"`
	Undoes              string         `json:"undoes,omitempty" yaml:"undoes,omitempty"`   // program of this package that it takes back: an uninstall
	Repairs             string         `json:"repairs,omitempty" yaml:"repairs,omitempty"` // program of this package that it puts right: it runs only where that one succeeded, or is detected
	// RunFirst are programs that must have succeeded on the machine before this one starts, in their order: package@version/program,
	// or the name of a program of this package.
	RunFirst       []string   `json:"run-first,omitempty" yaml:"run-first,omitempty"`
	AlwaysRunFirst bool       `json:"always-run-first,omitempty" yaml:"always-run-first,omitempty"` // also where they succeeded before
	DiskSpace      Bytes      `json:"disk-space,omitempty" yaml:"disk-space,omitempty"`             // that must be free on the system's disk before the start, beside the content
	Platforms      []Platform `json:"platforms,omitempty" yaml:"platforms,omitempty"`               // none: every one
	Window         string     `json:"window,omitempty" yaml:"window,omitempty"`                     // of an interactive program on Windows: normal, minimized, maximized or hidden
	MSIScope       string     `json:"msi-scope,omitempty" yaml:"msi-scope,omitempty"`               // of an .msi: machine (default of administrative programs) or as-authored
	// Product is the product code of the .msi that the program installs, read at publish.
	Product string `json:"product,omitempty" yaml:"-"`
	Comment string `json:"comment,omitempty" yaml:"comment,omitempty"`
}

// Supersede is a package that another one takes the place of: its programs do not run any more where the other succeeded.
type Supersede struct {
	Package string `json:"package" yaml:"package"`
	Version string `json:"version,omitempty" yaml:"version,omitempty"` // "2.9", "< 3.0"; empty: every other version, and every version of another package
	// Uninstall removes it first: package@version/program. Empty: it is replaced, as by most upgrades.
	Uninstall string `json:"uninstall,omitempty" yaml:"uninstall,omitempty"`
}

// Platform is a kind of machine. Versions are of the operating system, both inclusive.
type Platform struct {
	OS         string `json:"os" yaml:"os"`
	Arch       string `json:"arch,omitempty" yaml:"arch,omitempty"`
	Name       string `json:"name,omitempty" yaml:"name,omitempty"` // as the fact os_name says it: debian, "Microsoft Windows 11"; its beginning is enough
	MinVersion string `json:"min-version,omitempty" yaml:"min-version,omitempty"`
	MaxVersion string `json:"max-version,omitempty" yaml:"max-version,omitempty"`
}

// Words of Program.Window.
const (
	WindowNormal    = "normal"
	WindowMinimized = "minimized"
	WindowMaximized = "maximized"
	WindowHidden    = "hidden"
)

// Bytes is a size, written "500MB" or "2GiB" in files and on the wire.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

// String is the one spelling.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if int64(b) >= u.size && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText writes the largest unit that divides it.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a whole number and a unit: B, KB, MB, GB (thousands), KiB, MiB or GiB.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			if err != nil || n < 0 || n > math.MaxInt64/u.size {
				break
			}
			*b = Bytes(n * u.size)
			return nil
		}
	}
	return fmt.Errorf("size %q: write it as 500MB or 2GiB", s)
}

// Reference is a file or folder on an external source that a program reads while it runs. Nothing else outside is open to
// it by the account that reads for it.
type Reference struct {
	URL    string `json:"url" yaml:"url"`                           // an address as package resource writes it
	SHA256 string `json:"sha256,omitempty" yaml:"sha256,omitempty"` // of a file: what it must be
	// Optional: the program starts also where the reference cannot be read. Else that is found out before the start.
	Optional bool `json:"optional,omitempty" yaml:"optional,omitempty"`
}

// Words of Program.Logon.
const (
	LogonUser = "user" // only when a user is logged on
	LogonNone = "none" // only when no user is logged on
	LogonAny  = "any"  // whether or not
)

// Words of Program.After.
const (
	AfterNone            = "none"
	AfterRestart         = "restart"          // the agent restarts the machine
	AfterProgramRestarts = "program-restarts" // the program restarts the machine
	AfterLogoff          = "logoff"           // the agent logs the users off
)

// Words of Program.MSIScope.
const (
	MSIScopeMachine    = "machine"
	MSIScopeAsAuthored = "as-authored"
)

// LogonNeeded is who must be logged on, defaults resolved: a program with run: user always needs its user.
func (p Program) LogonNeeded() string {
	switch {
	case p.Run == RunUser:
		return LogonUser
	case p.Logon == "":
		return LogonAny
	}
	return p.Logon
}

// DefaultMaxRunTime of a program that names none: the original's 120 minutes (domain-facts §0.6).
const DefaultMaxRunTime = 120 * time.Minute

// RunTime is how long the program may run.
func (p Program) RunTime() time.Duration {
	if p.MaxRunTime == 0 {
		return DefaultMaxRunTime
	}
	return time.Duration(p.MaxRunTime)
}

// KillOnTimeout follows the original (domain-facts §0.5): an administrative program without interaction
// is killed at its time limit, any other is only watched no longer, unless on-timeout says which.
func (p Program) KillOnTimeout() bool {
	switch p.OnTimeout {
	case "kill":
		return true
	case "stop-monitoring":
		return false
	}
	return p.Run == RunAdministrative && !p.Interactive
}

// Detect is one rule that tells whether a product is on the machine. Exactly one of File, Dpkg, Rpm, MSI
// and Script is set.
type Detect struct {
	File    string `json:"file,omitempty" yaml:"file,omitempty"` // absolute path that must exist
	SHA256  string `json:"sha256,omitempty" yaml:"sha256,omitempty"`
	Dpkg    string `json:"dpkg,omitempty" yaml:"dpkg,omitempty"` // package name
	Rpm     string `json:"rpm,omitempty" yaml:"rpm,omitempty"`
	MSI     string `json:"msi,omitempty" yaml:"msi,omitempty"` // product code
	Script  string `json:"script,omitempty" yaml:"script,omitempty"`
	Shell   string `json:"shell,omitempty" yaml:"shell,omitempty"`     // of a script: sh (default on Unix), cmd, powershell
	Version string `json:"version,omitempty" yaml:"version,omitempty"` // ">= 2.10", with dpkg, rpm and msi
}

// Command is an argument list, or one line that is split by the rule of the machine's OS (or given to
// the program's shell). In files and on the wire it is a list or a string.
type Command struct {
	Argv []string
	Line string
}

// Empty says whether there is no command at all.
func (c Command) Empty() bool { return len(c.Argv) == 0 && c.Line == "" }

// String is the command for people.
func (c Command) String() string {
	if c.Line != "" {
		return c.Line
	}
	return fmt.Sprintf("%q", c.Argv)
}

// MarshalJSON writes a list or a string.
func (c Command) MarshalJSON() ([]byte, error) {
	if c.Line != "" {
		return marshalPlain(c.Line)
	}
	return marshalPlain(c.Argv)
}

// marshalPlain keeps <, > and & readable: a manifest is read by people too.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// UnmarshalJSON reads a list or a string.
func (c *Command) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &c.Line)
	}
	return json.Unmarshal(data, &c.Argv)
}

// UnmarshalYAML reads a list or a string.
func (c *Command) UnmarshalYAML(decode func(any) error) error {
	if decode(&c.Argv) == nil {
		return nil
	}
	c.Argv = nil
	if err := decode(&c.Line); err != nil {
		return fmt.Errorf("command must be a list of arguments or one line: %w", err)
	}
	return nil
}

// Duration is written "90s", "20m", "24h", in files and on the wire.
type Duration time.Duration

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's notation; negative ones are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write it as 90s, 20m or 24h", text)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", text)
	}
	*d = Duration(v)
	return nil
}

// PackageNotice says which package was published or removed.
type PackageNotice struct {
	Package  string   `json:"package"`
	Version  string   `json:"version"`
	Digest   string   `json:"digest"` // of the manifest
	Bytes    int64    `json:"bytes"`
	Files    int      `json:"files"`
	Programs []string `json:"programs"`
	By       string   `json:"by"`
}

// Events about packages.
var (
	PackagePublished = declare("package.published", StreamEvents, "event.package.published.<package>", "content", "a package's manifest and all its bytes are stored", examplePackage)
	PackageRemoved   = declare("package.removed", StreamEvents, "event.package.removed.<package>", "content", "a package was removed; its bytes go with the last package that needs them", examplePackage)
)

var examplePackage = PackageNotice{Package: "hello", Version: "2.10-3", Digest: exampleDigest, Bytes: 53_148, Files: 1, Programs: []string{"install", "remove"}, By: "admin"}

//go:build unix

package elevate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/agent/account"
	"chandler/agent/supervise"
	"chandler/events"
)

const (
	defaultSudoersDir = "/etc/sudoers.d"
	asRoot            = "#0"
	programPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // of sudo itself
	maxRule           = 2 << 20                                                        // bytes of a drop-in
	envSuffix         = ".env"
	temporarySuffix   = ".tmp" // sudo skips names with a dot
	// startWithin is how long sudo goes by a rule: far longer than a start takes, far shorter than most programs run.
	startWithin = 5 * time.Minute
)

// sudo gives rights by drop-ins of sudoers.
type sudo struct {
	dir     string // of drop-ins
	records string
	search  []string // directories of sudo, visudo and chage
	within  time.Duration
	log     *slog.Logger
	step    func(string)
}

func newSystem(o Options) (system, error) {
	if o.SudoersDir == "" {
		o.SudoersDir = defaultSudoersDir
	}
	if !filepath.IsAbs(o.SudoersDir) {
		return nil, fmt.Errorf("sudoers directory %q is not absolute", o.SudoersDir)
	}
	return newSudo(o), nil
}

func newSudo(o Options) *sudo {
	return &sudo{
		dir: filepath.Clean(o.SudoersDir), records: o.Dir, within: startWithin, log: o.Log, step: o.reached,
		search: []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/run/wrappers/bin", "/usr/local/bin", "/usr/local/sbin"},
	}
}

func (s *sudo) raisedTo() string { return "root" }

func (s *sudo) has(who account.Account) bool { return who.UID == 0 }

// check does everything that can fail for a reason that an administrator can remove.
func (s *sudo) check(ctx context.Context, r record, spec supervise.Spec) (giving, bool, error) {
	who := r.Account
	cannot := func(resource, answer string) (giving, bool, error) {
		return nil, false, refuse(events.ElevationImpossible, who, resource, answer)
	}
	if os.Geteuid() != 0 {
		return cannot("sudo", "the agent does not run as root, and so cannot give rights to an account")
	}
	if err := spec.Validate(); err != nil {
		return nil, false, err
	}
	program, version, answer, err := s.tools(ctx)
	if err != nil {
		return nil, false, err
	}
	if answer != "" {
		return cannot("sudo", answer)
	}
	command := cleaned(spec.Argv[0])
	if err := startable(who, command, spec.Dir); err != nil {
		return nil, false, err
	}
	if err := s.closed(who, r.Dir, command, spec); err != nil {
		return nil, false, err
	}
	if err := checkEnvironment(spec.Env); err != nil {
		return cannot("environment", fmt.Sprintf("%v cannot be passed through sudo as it is: put it into a file of the package instead", err))
	}
	digest, err := digestOf(command)
	if err != nil {
		return nil, false, err
	}
	drop := rule{
		record: r, records: s.records, command: command, args: spec.Argv[1:], digest: digest, dir: filepath.Clean(spec.Dir),
		envFile: filepath.Join(s.records, r.Name+envSuffix), env: spec.Env, version: version,
		until: time.Now().Add(s.within), // by the clock that sudo goes by
	}
	drop.record.Standing = who.Administrator
	text, err := drop.text()
	if err != nil {
		return cannot(command, fmt.Sprintf("a rule of sudo cannot say exactly this command: %v; put it into a script of the package, and run that", err))
	}
	if err := s.expiryAllows(r); err != nil {
		return nil, false, err
	}
	return func(ctx context.Context) (supervise.Spec, string, error) {
		return s.give(ctx, program, drop, text, spec)
	}, who.Administrator, nil
}

// cleaned is the path as it is asked for, since a program may behave by its name; every link on its way is looked at. Only
// what Clean could take elsewhere is resolved.
func cleaned(path string) string {
	clean := filepath.Clean(path)
	if clean == path {
		return path
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return clean
}

// tools finds sudo; answer is what is missing.
func (s *sudo) tools(ctx context.Context) (program string, v version, answer string, err error) {
	for _, name := range append([]string{"sudo", "visudo"}, expiryTools()...) {
		tool := s.find(name)
		if tool == "" {
			return "", v, fmt.Sprintf("%s is not on this machine: install the package %s", name, packageOf(name)), nil
		}
		if _, err := rootsAlone(tool); err != nil { // the agent runs it as root
			return "", v, fmt.Sprintf("%s is not to be trusted: %v", tool, err), nil
		}
	}
	program = s.find("sudo")
	said, err := ask(ctx, nil, program, "-V")
	if err != nil {
		return "", v, "", fmt.Errorf("ask sudo for its version: %w", err)
	}
	v, known := parseVersion(said)
	if !known || v.before(1, 9, 3) {
		first, _, _ := strings.Cut(said, "\n")
		return "", v, fmt.Sprintf("%s calls itself %q: install sudo 1.9.3 or later, which lets a rule name digest and directory", program, first), nil
	}
	return program, v, "", nil
}

func packageOf(tool string) string {
	if tool == "chage" {
		return "passwd (shadow-utils)"
	}
	return "sudo, 1.9.3 or later"
}

func (s *sudo) find(name string) string {
	for _, dir := range s.search {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// startable finds what the supervisor would find, were it not sudo that it starts.
func startable(who account.Account, command, dir string) error {
	if info, err := os.Stat(dir); err != nil {
		return refuse(events.BadWorkingDirectory, who, dir, fmt.Sprintf("working directory: %v", err))
	} else if !info.IsDir() {
		return refuse(events.BadWorkingDirectory, who, dir, fmt.Sprintf("working directory: %s is not a directory", dir))
	}
	info, err := os.Stat(command)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse(events.CommandNotFound, who, command, err.Error())
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return refuse(events.CommandNotExecutable, who, command, command+" is not a file")
	case info.Mode().Perm()&0o111 == 0:
		return refuse(events.CommandNotExecutable, who, command, command+" has no execute permission")
	}
	return nil
}

// closed makes sure that nobody but root can change what is about to run as root: the account least of all.
func (s *sudo) closed(who account.Account, runDir, command string, spec supervise.Spec) error {
	because := func(what string, err error) error {
		var open *untrusted
		switch {
		case errors.As(err, &open):
			return refuse(events.ElevationImpossible, who, open.path, fmt.Sprintf("%s: %v", what, err))
		case errors.Is(err, fs.ErrNotExist):
			return refuse(events.CommandNotFound, who, command, fmt.Sprintf("%s: %v", what, err))
		}
		return err
	}
	if err := rootsCommand(command); err != nil {
		return because("the command", err)
	}
	directories := map[string]string{"the working directory": spec.Dir, "the run's directory": runDir, "the records of the agent": s.records, "the directory of rules": s.dir}
	if content := variable(spec.Env, "CHANDLER_PACKAGE"); content != "" {
		directories["the package's files"] = content
	}
	for what, dir := range directories {
		if _, err := rootsAlone(dir); errors.Is(err, fs.ErrNotExist) {
			return refuse(events.ElevationImpossible, who, dir, fmt.Sprintf("%s: %v", what, err))
		} else if err != nil {
			return because(what, err)
		}
	}
	for _, dir := range filepath.SplitList(variable(spec.Env, "PATH")) {
		if !filepath.IsAbs(dir) {
			return refuse(events.ElevationImpossible, who, "PATH", fmt.Sprintf("%q on the PATH is not an absolute path", dir))
		}
		if err := notWritableBy(who, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return because("a directory on the PATH", err)
		}
	}
	if dir := variable(spec.Env, "TMPDIR"); dir != "" {
		if err := rootsOrSticky(dir); err != nil {
			return because("the directory for temporary files", err)
		}
	}
	return nil
}

func digestOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// give puts the rule into place, checked, and asks sudo whether it lets the account do what it is to do.
func (s *sudo) give(ctx context.Context, program string, drop rule, text string, spec supervise.Spec) (supervise.Spec, string, error) {
	who := drop.record.Account
	path := filepath.Join(s.dir, drop.record.Name)
	if err := writeSynced(drop.envFile, envFile(spec.Env), 0o600); err != nil {
		return spec, "", err
	}
	if err := writeSynced(path+temporarySuffix, []byte(text), 0o440); err != nil {
		return spec, "", err
	}
	s.step("written")
	if said, err := ask(ctx, nil, s.find("visudo"), "-c", "-f", path+temporarySuffix); refused(err) {
		return spec, "", refuse(events.ElevationImpossible, who, path, "visudo refuses the rule for this command: "+said)
	} else if err != nil {
		return spec, "", fmt.Errorf("ask visudo: %w", err)
	}
	if err := os.Rename(path+temporarySuffix, path); err != nil {
		return spec, "", err
	}
	if err := syncDirectory(s.dir); err != nil {
		return spec, "", err
	}
	s.step("rule")
	lifted, err := s.liftExpiry(ctx, drop.record)
	if err != nil {
		return spec, "", err
	}
	s.step("expiry")
	spec.Argv = append([]string{program, "-n", "-u", asRoot, "--", drop.command}, drop.args...)
	spec.Credential = &supervise.Credential{UID: who.UID, GID: who.GID, Groups: who.Groups}
	spec.Dir, spec.Env = "/", sudoEnvironment(spec.Env)
	asked := append([]string{"-n", "-l", "-u", asRoot, "--", drop.command}, drop.args...)
	if said, err := ask(ctx, &spec, program, asked...); refused(err) {
		return spec, "", refuse(events.ElevationImpossible, who, drop.command, fmt.Sprintf("sudo does not let %s run it, in spite of the rule %s: %s", who.Name, path, cmp.Or(said, "it says no more")))
	} else if err != nil {
		return spec, "", fmt.Errorf("ask sudo: %w", err)
	}
	return spec, fmt.Sprintf("rule %s for this command alone, to be started before %s%s", path, drop.until.UTC().Format(time.RFC3339), lifted), nil
}

// sudoEnvironment is what sudo is called with: nothing of the program's but what the rule keeps.
func sudoEnvironment(env []string) []string {
	own := sudosOwn(env)
	if variable(own, "HOME") == "" {
		own = append(own, "HOME=/")
	}
	return append(own, "PATH="+programPath, "LANG=C")
}

// take removes whatever give made. It does all it can before it reports an error.
func (s *sudo) take(ctx context.Context, r record) (string, error) {
	path := filepath.Join(s.dir, r.Name)
	_, err := os.Lstat(path)
	means := "rule " + path + " removed"
	if errors.Is(err, fs.ErrNotExist) {
		means, err = "rule "+path+" was gone", nil
	}
	for _, file := range []string{path, path + temporarySuffix, filepath.Join(s.records, r.Name+envSuffix)} {
		err = errors.Join(err, removeSynced(file))
	}
	ended, failed := s.endExpiry(ctx, r)
	return means + ended, errors.Join(err, failed)
}

// strays finds rules whose agent has no record of them, also such as were not in place yet.
func (s *sudo) strays(string) ([]record, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 { // then no rule was made either
		return nil, nil
	}
	var found []record
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), namePrefix) || !entry.Type().IsRegular() {
			continue
		}
		text, failed := readFile(filepath.Join(s.dir, entry.Name()), maxRule)
		if errors.Is(failed, fs.ErrNotExist) {
			continue
		}
		err = errors.Join(err, failed)
		h, ours := parseHeader(text)
		if !ours || h.Name != strings.TrimSuffix(entry.Name(), temporarySuffix) {
			continue // an administrator's own, whatever its name
		}
		if _, kept := os.Lstat(filepath.Join(h.Records, h.Name+recordSuffix)); kept == nil {
			continue // of this agent, or another on this machine
		}
		h.record.Taken, h.record.Notes = false, nil
		found = append(found, h.record)
	}
	return found, err
}

func syncDirectory(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

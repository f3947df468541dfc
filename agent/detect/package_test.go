package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chandler/events"
	"github.com/google/go-cmp/cmp"
)

// needTool skips without a program, or fails where everything must be tested.
func needTool(t *testing.T, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	message := program + " is missing: apt-get install " + debianPackage
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(message)
	}
	t.Skip(message)
}

func answering(out Output, err error) Run {
	return func(context.Context, string, ...string) (Output, error) { return out, err }
}

func TestDpkgAnswers(t *testing.T) {
	tests := []struct {
		name, version string
		out           Output
		err           error
		state         State
		explanation   string
	}{
		{"an installed package is installed", "", Output{Stdout: "installed 2.10-3\n"}, nil, Installed, "2.10-3"},
		{"its version must be met", ">= 2.10", Output{Stdout: "installed 2.10-3\n"}, nil, Installed, "2.10-3"},
		{"an older version is not the package asked for", ">= 2.12", Output{Stdout: "installed 2.10-3\n"}, nil, NotInstalled, "2.10-3, not >= 2.12"},
		{"one architecture of several suffices", "= 2", Output{Stdout: "installed 1\ninstalled 2\n"}, nil, Installed, "version 2"},
		{"pending triggers do not matter", "", Output{Stdout: "triggers-pending 1\n"}, nil, Installed, "version 1"},
		{"left configuration is not the package", "", Output{Stdout: "config-files 2.10-3\n"}, nil, NotInstalled, "config-files"},
		{"a package that was not configured is not installed", "", Output{Stdout: "half-configured 2.10-3\n"}, nil, NotInstalled, "half-configured"},
		{"a package dpkg never heard of is not installed", "", Output{Code: 1, Stderr: "dpkg-query: no packages found matching hello\n"}, nil, NotInstalled, "knows no package"},
		{"another failure claims nothing", "", Output{Code: 1, Stderr: "dpkg-query: out of memory\n"}, nil, Unknown, "out of memory"},
		{"a broken database claims nothing", "", Output{Code: 2, Stderr: "parsing file 'status'"}, nil, Unknown, "exit code 2: parsing"},
		{"a missing dpkg claims nothing", "", Output{}, fmt.Errorf("start: %w", exec.ErrNotFound), Unknown, "dpkg-query is not on this machine"},
		{"a dpkg that hangs claims nothing", "", Output{}, context.DeadlineExceeded, Unknown, "time limit"},
		{"a dpkg that is killed claims nothing", "", Output{}, errors.New("signal: killed"), Unknown, "signal: killed"},
		{"a condition that cannot be read claims nothing", "about 2", Output{Stdout: "installed 2.10-3\n"}, nil, Unknown, "about 2"},
		{"a version that cannot be compared claims nothing", ">= 2", Output{Stdout: "installed ...\n"}, nil, Unknown, "..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Dpkg{Run: answering(tt.out, tt.err)}.Detect(t.Context(), events.Detect{Dpkg: "hello", Version: tt.version})
			want(t, got, tt.state, tt.explanation)
		})
	}
}

func TestRpmAnswers(t *testing.T) {
	tests := []struct {
		name, version string
		out           Output
		err           error
		state         State
		explanation   string
	}{
		{"an installed package is installed", "", Output{Stdout: "hello 0:2.10-3\n"}, nil, Installed, "version 2.10-3"},
		{"a version without a release is about every release", "= 2.10", Output{Stdout: "hello 0:2.10-3.el9\n"}, nil, Installed, "2.10-3.el9"},
		{"a version with a release is about that one", "= 2.10-2.el9", Output{Stdout: "hello 0:2.10-3.el9\n"}, nil, NotInstalled, "not = 2.10-2.el9"},
		{"an epoch counts", "> 9", Output{Stdout: "hello 1:2.10-3\n"}, nil, Installed, "1:2.10-3"},
		{"one of several versions suffices", "= 5.1", Output{Stdout: "hello 0:5.0-1\nhello 0:5.1-1\n"}, nil, Installed, "5.1-1"},
		{"a package rpm has not is not installed", "", Output{Code: 1, Stdout: "package hello is not installed\n"}, nil, NotInstalled, "not installed"},
		{"an unreadable database claims nothing", "", Output{Code: 1, Stdout: "package hello is not installed\n", Stderr: "error: cannot open Packages database"}, nil, Unknown, "cannot open"},
		{"an answer about another name claims nothing", "", Output{Stdout: "hell 0:1-1\n"}, nil, Unknown, "name alone"},
		{"no answer claims nothing", "", Output{}, nil, Unknown, "printed nothing"},
		{"a missing rpm claims nothing", "", Output{}, fmt.Errorf("start: %w", exec.ErrNotFound), Unknown, "rpm is not on this machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Rpm{Run: answering(tt.out, tt.err)}.Detect(t.Context(), events.Detect{Rpm: "hello", Version: tt.version})
			want(t, got, tt.state, tt.explanation)
		})
	}
}

func TestNamesThatAToolWouldTakeForMoreAreNotGivenToIt(t *testing.T) {
	run := func(_ context.Context, _ string, argv ...string) (Output, error) {
		t.Errorf("ran %q", argv)
		return Output{}, nil
	}
	for _, name := range []string{"he*", "--admindir=/x", "-x", "hello world", "hello\n", "he?lo", "", "hello:", strings.Repeat("x", 300)} {
		want(t, Dpkg{Run: run}.Detect(t.Context(), events.Detect{Dpkg: name}), Unknown, "not a name")
		want(t, Rpm{Run: run}.Detect(t.Context(), events.Detect{Rpm: name}), Unknown, "not a name")
	}
	gone := filepath.Join(t.TempDir(), "gone")
	want(t, Dpkg{Run: run, Root: gone}.Detect(t.Context(), events.Detect{Dpkg: "hello"}), Unknown, "package root")
	want(t, Rpm{Run: run, Root: gone}.Detect(t.Context(), events.Detect{Rpm: "hello"}), Unknown, "package root")
}

func TestTheToolIsAskedAboutTheRoot(t *testing.T) {
	root := t.TempDir()
	var got []string
	run := func(_ context.Context, _ string, argv ...string) (Output, error) {
		got = argv
		return Output{Stdout: "installed 1\n"}, nil
	}
	Dpkg{Run: run, Root: root}.Detect(t.Context(), events.Detect{Dpkg: "libc6:amd64"})
	if diff := cmp.Diff([]string{"dpkg-query", "--root=" + root, "-W", `-f=${db:Status-Status} ${Version}\n`, "libc6:amd64"}, got); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

func mustRun(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRealDpkg(t *testing.T) {
	needTool(t, "dpkg-deb", "dpkg")
	dir, root := t.TempDir(), t.TempDir()
	mustWrite(t, filepath.Join(dir, "src/DEBIAN/control"),
		"Package: chandler-probe\nVersion: 2.10-3\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nDescription: made to be detected\n")
	mustWrite(t, filepath.Join(dir, "src/DEBIAN/conffiles"), "/etc/chandler-probe\n")
	mustWrite(t, filepath.Join(dir, "src/etc/chandler-probe"), "x\n")
	deb := filepath.Join(dir, "probe.deb")
	mustRun(t, "dpkg-deb", "--root-owner-group", "-b", filepath.Join(dir, "src"), deb)
	for _, path := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(root, "var/lib/dpkg/status"), "")

	d := newDetector(t, Options{Kinds: map[string]Kind{KindDpkg: Dpkg{Run: Exec(nil), Root: root}}})
	detect := func(version string) Result {
		return d.Detect(t.Context(), []events.Detect{{Dpkg: "chandler-probe", Version: version}})
	}
	dpkg := []string{"dpkg", "--force-not-root", "--force-script-chrootless", "--root=" + root}

	want(t, detect(""), NotInstalled, "knows no package")
	mustRun(t, append(dpkg, "-i", deb)...)
	want(t, detect(""), Installed, "2.10-3")
	want(t, detect(">= 2.9"), Installed, "2.10-3")
	want(t, detect("> 2.10-3"), NotInstalled, "not > 2.10-3")
	mustRun(t, append(dpkg, "-r", "chandler-probe")...)
	want(t, detect(""), NotInstalled, "config-files")
	mustWrite(t, filepath.Join(root, "var/lib/dpkg/status"), "garbage\n")
	want(t, detect(""), Unknown, "dpkg-query failed")
}

func TestRealRpm(t *testing.T) {
	needTool(t, "rpmbuild", "rpm")
	if os.Geteuid() != 0 {
		t.Skip("rpm --root needs root")
	}
	dir, root := t.TempDir(), t.TempDir()
	spec := filepath.Join(dir, "probe.spec")
	mustWrite(t, spec, "Name: chandler-probe\nEpoch: 1\nVersion: 2.10\nRelease: 3\nSummary: made to be detected\nLicense: none\nBuildArch: noarch\n%description\n-\n%files\n")
	mustRun(t, "rpmbuild", "-bb", "--define", "_topdir "+dir, "--define", "_rpmdir "+dir, "--define", "_build_name_fmt probe.rpm", spec)

	d := newDetector(t, Options{Kinds: map[string]Kind{KindRpm: Rpm{Run: Exec(nil), Root: root}}})
	detect := func(version string) Result {
		return d.Detect(t.Context(), []events.Detect{{Rpm: "chandler-probe", Version: version}})
	}
	want(t, detect(""), NotInstalled, "not installed")
	mustRun(t, "rpm", "--root="+root, "--nodeps", "-i", filepath.Join(dir, "probe.rpm"))
	want(t, detect(""), Installed, "1:2.10-3")
	want(t, detect("= 1:2.10"), Installed, "1:2.10-3")
	want(t, detect(">= 2:0"), NotInstalled, "not >= 2:0")
	mustRun(t, "rpm", "--root="+root, "-e", "chandler-probe")
	want(t, detect(""), NotInstalled, "not installed")
}

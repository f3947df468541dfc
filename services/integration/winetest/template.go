package winetest

import (
	"crypto/rand"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

//go:embed template.sh
var templateScript string

//go:embed testdata/bcryptprimitives.c
var primitives []byte

// template is the directory of the prefix that all others are copied from. The first call on a machine makes it, which
// takes about a quarter of a minute; processes that call at once wait.
func template(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.Command("wine", "--version").Output()
	if err != nil {
		unavailable(t, fmt.Sprintf("Wine does not run (apt-get install wine wine64): %v", err))
	}
	dir := filepath.Join(cache, "chandler-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "bcryptprimitives.c")
	if err := os.WriteFile(source, primitives, 0o600); err != nil {
		t.Fatal(err)
	}
	// A Wine of another version would bring a copy up to date every time. The number counts changes of template.sh.
	name := strings.Trim(regexp.MustCompile(`[^a-zA-Z0-9.]+`).ReplaceAllString(string(version), "-"), "-")
	prefix := filepath.Join(dir, name+"-1")
	cmd := exec.CommandContext(t.Context(), "flock", prefix+".lock", "sh", "-euc", templateScript, "sh", prefix, source)
	cmd.Env = environment(prefix)
	if out, err := cmd.CombinedOutput(); err != nil {
		unavailable(t, fmt.Sprintf("make the Wine prefix %s: %v\n%s", prefix, err, out))
	}
	return prefix
}

// linkedSize is the size from which a system file of a prefix is a link into the template instead of a copy: Wine's
// libraries are 600 MB, which nothing writes to.
const linkedSize = 32 << 10

// copyPrefix makes a machine of its own of the template.
func copyPrefix(from, to string) error {
	system := filepath.Join(from, "drive_c", "windows")
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, below)
		info, err := entry.Info()
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.Mkdir(target, 0o700)
		case strings.HasPrefix(path, filepath.Join(from, "drive_c", "users")) && entry.Type() == fs.ModeSymlink:
			return os.Mkdir(target, 0o700) // Documents and the like lead to those of this machine's user
		case entry.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case strings.HasPrefix(path, system) && info.Size() >= linkedSize:
			return os.Symlink(path, target)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if below == "system.reg" {
			data = renumbered(data)
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// renumbered gives the machine an id of its own in its registry, as an installation would have done.
func renumbered(registry []byte) []byte {
	var id [16]byte
	rand.Read(id[:])
	line := fmt.Appendf(nil, `"MachineGuid"="%x-%x-%x-%x-%x"`, id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return regexp.MustCompile(`"MachineGuid"="[^"]*"`).ReplaceAllLiteral(registry, line)
}

// unavailable skips the test, unless everything is required.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// need looks for programs, each of a Debian package.
func need(t testing.TB, programs ...string) {
	t.Helper()
	debian := map[string]string{"wine": "wine wine64", "wineserver": "wine wine64", "flock": "util-linux", "timeout": "coreutils",
		"x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64-win32", "wixl": "wixl", "msibuild": "msitools"}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			unavailable(t, fmt.Sprintf("there is no %s: apt-get install %s", program, debian[program]))
		}
	}
}

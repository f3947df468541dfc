package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMarksOfAMachine(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string // nil: an error
	}{
		{"system and hardware", map[string]string{"etc/machine-id": "aa\n", "sys/class/dmi/id/product_uuid": "BB\n"}, []string{"aa", "BB"}},
		{"a machine without a hardware id", map[string]string{"etc/machine-id": "aa\n"}, []string{"aa", ""}},
		{"the older place of the id", map[string]string{"var/lib/dbus/machine-id": "cc\n"}, []string{"cc", ""}},
		{"an image that was not yet started", map[string]string{"etc/machine-id": "uninitialized\n", "var/lib/dbus/machine-id": "cc"}, []string{"cc", ""}},
		{"an id that is not filled in says nothing", map[string]string{"etc/machine-id": "", "var/lib/dbus/machine-id": ""}, nil},
		{"hardware alone is shared by containers", map[string]string{"sys/class/dmi/id/product_uuid": "BB\n"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := marksIn(writeFiles(t, tt.files))
			if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.want != nil) {
				t.Errorf("error %v, marks (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestABootIsKnownByTheKernelAndProcess1(t *testing.T) {
	const stat = "1 (sys) temd (x) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %START% 99 100"
	boot := func(id, start string) string {
		t.Helper()
		got, err := bootIn(writeFiles(t, map[string]string{"proc/sys/kernel/random/boot_id": id + "\n", "proc/1/stat": strings.Replace(stat, "%START%", start, 1)}))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := boot("aa", "5")
	if again := boot("aa", "5"); again != first {
		t.Error("the same boot has two ids")
	}
	if boot("bb", "5") == first {
		t.Error("another kernel has the same id")
	}
	if boot("aa", "6") == first {
		t.Error("a container started again has the same id")
	}
	for name, files := range map[string]map[string]string{
		"no /proc":       {},
		"no process 1":   {"proc/sys/kernel/random/boot_id": "aa"},
		"a short stat":   {"proc/sys/kernel/random/boot_id": "aa", "proc/1/stat": "1 (init) S 0"},
		"an empty stat":  {"proc/sys/kernel/random/boot_id": "aa", "proc/1/stat": ""},
		"an empty id":    {"proc/sys/kernel/random/boot_id": "", "proc/1/stat": stat},
		"no parentheses": {"proc/sys/kernel/random/boot_id": "aa", "proc/1/stat": "1 2 3"},
	} {
		if id, err := bootIn(writeFiles(t, files)); err == nil {
			t.Errorf("%s: got the id %s", name, id)
		}
	}
}

func TestTimeZones(t *testing.T) {
	tests := []struct {
		name, env, link string
		files           map[string]string
		want            string // empty: an error
	}{
		{"the link names it", "", "/usr/share/zoneinfo/Europe/Oslo", nil, "Europe/Oslo"},
		{"a relative link does too", "", "../usr/share/zoneinfo/Etc/UTC", nil, "Etc/UTC"},
		{"the environment outweighs it", "America/New_York", "/usr/share/zoneinfo/Europe/Oslo", nil, "America/New_York"},
		{"also written with a colon", ":America/New_York", "", nil, "America/New_York"},
		{"a file in the environment names nothing", ":/etc/localtime", "/usr/share/zoneinfo/Europe/Oslo", nil, "Europe/Oslo"},
		{"Debian has a file for where there is no link", "", "", map[string]string{"etc/localtime": "TZif", "etc/timezone": "Europe/Oslo\n"}, "Europe/Oslo"},
		{"nothing means UTC", "", "", nil, "UTC"},
		{"a copied zone without a name is not guessed", "", "", map[string]string{"etc/localtime": "TZif"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := writeFiles(t, tt.files)
			if tt.link != "" {
				if err := os.MkdirAll(filepath.Join(root, "etc"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(tt.link, filepath.Join(root, "etc/localtime")); err != nil {
					t.Fatal(err)
				}
			}
			got, err := zoneIn(root, tt.env)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

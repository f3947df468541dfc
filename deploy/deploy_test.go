// Package deploy_test checks that what is deployed for real is understood by those who read it: units by
// systemd, the broker's configuration by nats-server, the compose file by its specification, and all of it
// together by booting machines that run it.
package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// unavailable skips the test, unless everything is required.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestSystemdUnderstandsEveryLineOfTheUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		unavailable(t, "checking units needs systemd-analyze: apt-get install systemd")
	}
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("units: %v, %v", units, err)
	}
	installed := strings.NewReplacer("/usr/local/bin/chandler-agent", "/bin/true", "/usr/local/bin/chandler", "/bin/true")
	for _, unit := range units {
		t.Run(filepath.Base(unit), func(t *testing.T) {
			data, err := os.ReadFile(unit)
			if err != nil {
				t.Fatal(err)
			}
			// systemd looks whether the program is there, which it is only on machines that are installed.
			file := filepath.Join(t.TempDir(), filepath.Base(unit))
			if err := os.WriteFile(file, []byte(installed.Replace(string(data))), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput()
			if err != nil || len(bytes.TrimSpace(out)) > 0 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// composeFile is the part of the compose specification that compose.yaml uses.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]struct{}       `yaml:"volumes"`
}

type composeService struct {
	Build *struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	DependsOn   []string          `yaml:"depends_on"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	ReadOnly    bool              `yaml:"read_only"`
	StopGrace   string            `yaml:"stop_grace_period"`
	Restart     string            `yaml:"restart"`
}

func TestEveryFileThatTheComposeFileNamesIsThere(t *testing.T) {
	c := readCompose(t)
	if len(c.Services) < 3 {
		t.Errorf("there are only %d services", len(c.Services))
	}
	for name, s := range c.Services {
		if s.Image == "" {
			t.Errorf("service %s has no image", name)
		}
		if s.Build != nil {
			mustExist(t, name, filepath.Join(s.Build.Context, s.Build.Dockerfile))
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			switch _, declared := c.Volumes[source]; {
			case source == "./administrator": // made by the first start
			case strings.HasPrefix(source, "."):
				mustExist(t, name, source)
			case !declared:
				t.Errorf("service %s uses volume %s, which is not declared", name, source)
			}
		}
		for _, other := range s.DependsOn {
			if _, there := c.Services[other]; !there {
				t.Errorf("service %s depends on %s, which is not there", name, other)
			}
		}
	}
}

func TestOnlyPortsThatAskWhoIsThereAreOpenToOthers(t *testing.T) {
	open := []string{"4222:4222", "4280:4280"} // broker and content
	for name, s := range readCompose(t).Services {
		for _, port := range s.Ports {
			asks := name == "chandler" && slices.Contains(open, port) && slices.Contains(s.Command, "--tls")
			if !asks && !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("service %s publishes %s on every address, but nothing asks who is there", name, port)
			}
		}
	}
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	readStrict(t, "compose/compose.yaml", &c)
	return c
}

func mustExist(t *testing.T, service, path string) {
	t.Helper()
	info, err := os.Stat(filepath.Join("compose", path))
	if err != nil {
		t.Errorf("service %s: %v", service, err)
		return
	}
	if info.Mode()&fs.ModeType != 0 {
		t.Errorf("service %s: %s is not a file", service, path)
	}
}

func readStrict(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := yaml.NewDecoder(f, yaml.Strict()).Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

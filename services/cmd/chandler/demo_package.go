package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// The package of the demonstration. Its programs install below $DEMO_ROOT, of which each agent has one.
const (
	demoPackage = "chandler-hello"
	demoVersion = "1.0"
	demoText    = "Hello. A ship's chandler supplies a fleet.\n"
)

// makeDemoPackage writes a package into dir: on a Debian-like machine a .deb installed by dpkg, elsewhere
// an archive unpacked by a script.
func makeDemoPackage(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	_, noDpkg := exec.LookPath("dpkg")
	_, noBuild := exec.LookPath("dpkg-deb")
	if noDpkg != nil || noBuild != nil {
		return dir, makeArchivePackage(dir)
	}
	return dir, makeDebPackage(ctx, dir)
}

func makeDebPackage(ctx context.Context, dir string) error {
	tree, err := os.MkdirTemp(filepath.Dir(dir), "deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	// Directories of a package are for everybody, unlike ours.
	for _, d := range []string{"", "DEBIAN", "usr", "usr/share", "usr/share/" + demoPackage} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	control := "Package: " + demoPackage + "\nVersion: " + demoVersion + "\nArchitecture: all\nMaintainer: Chandler <chandler@example.invalid>\nDescription: a greeting, to show an installation\n"
	if err := os.WriteFile(filepath.Join(tree, "DEBIAN", "control"), []byte(control), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "usr/share", demoPackage, "hello.txt"), []byte(demoText), 0o644); err != nil {
		return err
	}
	file := demoPackage + "_" + demoVersion + "_all.deb"
	build := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-b", tree, filepath.Join(dir, file))
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", file, err, said)
	}
	return os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(debPackageFile(file)), 0o600)
}

func debPackageFile(file string) string {
	return `api: chandler/v1
package: ` + demoPackage + `
version: "` + demoVersion + `"
files: [` + file + `]
programs:
  install:
    shell: sh
    command: |
      if [ "$(id -u)" != 0 ]; then not_root="--force-not-root --force-script-chrootless"; fi
      exec dpkg $not_root --root="$DEMO_ROOT" -i ` + file + `
    run: administrative
    max-run-time: 2m
    detect:
      - script: dpkg-query --admindir="$DEMO_ROOT/var/lib/dpkg" -W -f '${db:Status-Status} ${Version}' ` + demoPackage + ` 2>/dev/null | grep '^installed' || true
`
}

func makeArchivePackage(dir string) error {
	if err := writeDemoArchive(filepath.Join(dir, "hello.tar.gz")); err != nil {
		return err
	}
	text := `api: chandler/v1
package: ` + demoPackage + `
version: "` + demoVersion + `"
files: [hello.tar.gz]
programs:
  install:
`
	if runtime.GOOS == "windows" {
		text += `    shell: cmd
    command: tar -xzf hello.tar.gz -C "%DEMO_ROOT%"
    run: administrative
    detect: [{shell: cmd, script: 'if exist "%DEMO_ROOT%\hello.txt" echo installed'}]
`
	} else {
		text += `    shell: sh
    command: tar -xzf hello.tar.gz -C "$DEMO_ROOT"
    run: administrative
    detect: [{script: 'if [ -f "$DEMO_ROOT/hello.txt" ]; then echo installed; fi'}]
`
	}
	return os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(text), 0o600)
}

func writeDemoArchive(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closing := f.Close(); err == nil {
			err = closing
		}
	}()
	zip := gzip.NewWriter(f)
	archive := tar.NewWriter(zip)
	if err := archive.WriteHeader(&tar.Header{Name: "hello.txt", Mode: 0o644, Size: int64(len(demoText))}); err != nil {
		return err
	}
	if _, err := archive.Write([]byte(demoText)); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zip.Close()
}

// makeDemoRoot makes the throwaway directory that one agent installs into.
func makeDemoRoot(root string) error {
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644)
}

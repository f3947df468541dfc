package debfile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const sampleControl = `Package: chandler-sample
Version: 1:2.10-3
Architecture: amd64
Maintainer: Skeppshandlare Åberg <aberg@example.com>
Installed-Size: 280
Depends: libc6 (>= 2.34),
 debconf (>= 0.5) | debconf-2.0
Description: example package of a ship's chandler
 It says hello
 .
 and nothing else.
`

var sampleInfo = Info{
	Package:      "chandler-sample",
	Version:      "1:2.10-3",
	Architecture: "amd64",
	Maintainer:   "Skeppshandlare Åberg <aberg@example.com>",
	Depends:      "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0",
	Description:  "example package of a ship's chandler",
	InstalledKiB: 280,
}

func TestReadTheSamplePackage(t *testing.T) {
	data, err := os.ReadFile("testdata/sample.deb")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"at once":        bytes.NewReader(data),
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(data)),
		"end with bytes": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		got, err := Read(r, DefaultLimit)
		if diff := cmp.Diff(sampleInfo, got); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got\n%s", name, err, diff)
		}
	}
}

func TestReadWhatDpkgDebMakes(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("dpkg-deb is missing: install dpkg")
		}
		t.Skip("dpkg-deb is missing: install dpkg")
	}
	for _, compression := range [][]string{
		{"-Zxz"}, {"-Zxz", "-z9"}, {"-Zxz", "-Sextreme"}, {"-Zgzip"}, {"-Zzstd"}, {"-Zzstd", "-z19"}, {"-Znone"},
	} {
		t.Run("with "+strings.Join(compression, " "), func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"DEBIAN/control":                   sampleControl,
				"DEBIAN/md5sums":                   strings.Repeat("d41d8cd98f00b204e9800998ecf8427e  usr/share/hello\n", 5000),
				"usr/share/chandler-sample/readme": "hello\n",
			} {
				file = filepath.Join(dir, "tree", file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"--root-owner-group", "--uniform-compression"}, compression...)
			file := filepath.Join(dir, "sample.deb")
			if out, err := exec.Command("dpkg-deb", append(args, "-b", filepath.Join(dir, "tree"), file)...).CombinedOutput(); err != nil {
				t.Fatalf("dpkg-deb: %v\n%s", err, out)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := Read(f, DefaultLimit)
			if diff := cmp.Diff(sampleInfo, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

func TestReadAcceptsWhatDpkgAccepts(t *testing.T) {
	tests := map[string]struct {
		deb  []byte
		want Info
	}{
		"a member of somebody else's before the control archive": {
			deb("debian-binary", "2.0\n", "_extra", "odd", "control.tar", controlTar("./control", minimal)), minimalInfo},
		"a slash behind the names": {
			deb("debian-binary/", "2.0\n", "control.tar/", controlTar("control", minimal)), minimalInfo},
		"field names in another case, comments and empty lines before": {
			withControl("\n# comment\npackage: a\nVERSION : 1\nArchitecture:all\n\nPackage: b\n"), minimalInfo},
		"lines that end as on Windows": {
			withControl(strings.ReplaceAll(minimal, "\n", "\r\n")), minimalInfo},
		"a size that is no number": {
			withControl(minimal + "Installed-Size: big\n"), minimalInfo},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Read(bytes.NewReader(test.deb), DefaultLimit)
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

func TestReadRefusesWhatIsNoPackage(t *testing.T) {
	good := withControl(minimal)
	symlink := tarOf(&tar.Header{Name: "./control", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, "")
	tests := map[string]struct {
		deb  []byte
		want string
	}{
		"nothing":                            {nil, "not a Debian package"},
		"a text":                             {[]byte("#!/bin/sh\nexit 0\n"), "not a Debian package"},
		"another ar archive":                 {deb("foo.o", "x"), "first member"},
		"a format of the future":             {deb("debian-binary", "3.0\n"), `"3.0" is not supported`},
		"no control archive":                 {deb("debian-binary", "2.0\n"), "EOF"},
		"the data archive first":             {deb("debian-binary", "2.0\n", "data.tar", "x"), "no control archive"},
		"a compression nobody knows":         {deb("debian-binary", "2.0\n", "control.tar.bz3", "x"), "no control archive"},
		"a size that is no number":           {bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1), "size is"},
		"a control archive beyond the limit": {bytes.Replace(good, []byte("2048      `"), []byte("9999999999`"), 1), "allowed are"},
		"a file that ends early":             {good[:len(good)-1500], "EOF"},
		"garbage for gzip":                   {deb("debian-binary", "2.0\n", "control.tar.gz", "garbage garbage"), "unpack control.tar.gz"},
		"garbage for xz":                     {deb("debian-binary", "2.0\n", "control.tar.xz", "garbage garbage"), "no xz file"},
		"garbage for zstd":                   {deb("debian-binary", "2.0\n", "control.tar.zst", "garbage garbage"), "magic number"},
		"an xz file without a block":         {deb("debian-binary", "2.0\n", "control.tar.xz", xzHeader+"\x00"), "empty"},
		"an xz block of another filter":      {deb("debian-binary", "2.0\n", "control.tar.xz", xzHeader+"\x02\x00\x04\x01\x00\x00\x00\x00CRC4"), "LZMA2 is not"},
		"a dictionary beyond all bounds":     {deb("debian-binary", "2.0\n", "control.tar.xz", xzHeader+"\x02\x00\x21\x01\xff\x00\x00\x00CRC4"), "dictionary"},
		"no control file":                    {deb("debian-binary", "2.0\n", "control.tar", controlTar("./postinst", "x")), "no control file"},
		"a control file elsewhere":           {deb("debian-binary", "2.0\n", "control.tar", controlTar("./sub/control", minimal)), "no control file"},
		"a control file that is a link":      {deb("debian-binary", "2.0\n", "control.tar", string(symlink)), "no regular file"},
		"a control file beyond the limit":    {withControl(minimal + strings.Repeat("X", maxControl)), "allowed are"},
		"a bomb":                             {bomb(), "unpacks to more than is allowed"},
		"no package name":                    {withControl("Version: 1\nArchitecture: all\n"), `Package of the control file is ""`},
		"a package name that is an option":   {withControl("Package: --force-all\nVersion: 1\nArchitecture: all\n"), "Package of"},
		"no version":                         {withControl("Package: a\nArchitecture: all\n"), "Version of"},
		"a version with a space":             {withControl("Package: a\nVersion: 1 2\nArchitecture: all\n"), "Version of"},
		"no architecture":                    {withControl("Package: a\nVersion: 1\n"), "Architecture of"},
		"a field twice":                      {withControl(minimal + "package: b\n"), `"package" is there twice`},
		"a line that is no field":            {withControl(minimal + "nonsense\n"), "is no field"},
		"a continuation of nothing":          {withControl(" x\n" + minimal), "continuation line"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read(bytes.NewReader(test.deb), 1<<21)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestReadTakesNoDictionaryBeyondTheLimit(t *testing.T) {
	// A block that states a dictionary of 4 GiB less one byte, and ends.
	bytes4GiB := deb("debian-binary", "2.0\n", "control.tar.xz", xzHeader+"\x02\x00\x21\x01\x28\x00\x00\x00CRC4\x00")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Read(bytes.NewReader(bytes4GiB), 1<<20)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "read control archive: there is no control file") {
		t.Errorf("error is %v", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

func TestReadWrapsTheReadersError(t *testing.T) {
	broken := errors.New("cable pulled")
	good := withControl(minimal)
	for cut := range bytes.Index(good, []byte(minimal)) + len(minimal) { // nobody asks for what comes behind
		if _, err := Read(io.MultiReader(bytes.NewReader(good[:cut]), iotest.ErrReader(broken)), DefaultLimit); !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	sample, err := os.ReadFile("testdata/sample.deb")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add(withControl(minimal))
	f.Add(deb("debian-binary", "2.0\n", "control.tar.gz", string(gzipped(controlTar("control", minimal)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := Read(bytes.NewReader(data), 1<<20)
		if err == nil && (info.Package == "" || info.Package[0] == '-' || info.Version == "" || info.InstalledKiB < 0 ||
			strings.Contains(info.Depends+info.Description, "\n")) {
			t.Errorf("no error, but %+v", info)
		}
	})
}

const (
	minimal  = "Package: a\nVersion: 1\nArchitecture: all\n"
	xzHeader = "\xFD7zXZ\x00\x00\x04CRC4"
)

var minimalInfo = Info{Package: "a", Version: "1", Architecture: "all"}

// deb is an ar archive of the given names and contents.
func deb(members ...string) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for ; len(members) > 0; members = members[2:] {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", members[0], 0, 0, 0, 0o100644, len(members[1]), members[1])
		if len(members[1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func withControl(control string) []byte {
	return deb("debian-binary", "2.0\n", "control.tar", controlTar("./control", control))
}

func controlTar(name, control string) string {
	return string(tarOf(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(control))}, control))
}

func tarOf(header *tar.Header, content string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(header)
	_, err2 := io.WriteString(w, content)
	if err := errors.Join(err, err2, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// bomb is a package whose control archive is small and unpacks to 64 MiB before the control file.
func bomb() []byte {
	return deb("debian-binary", "2.0\n", "control.tar.gz", string(gzipped(controlTar("./zeros", strings.Repeat("\x00", 64<<20)))))
}

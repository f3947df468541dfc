package rpmfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var sampleInfo = Info{
	Name:    "chandler-sample",
	Version: "2.10~rc1",
	Release: "3",
	Epoch:   1,
	Arch:    "noarch",
	Summary: "Example package of a ship's chandler",
	Vendor:  "Skeppshandlare Åberg",
}

func TestReadTheSamplePackage(t *testing.T) {
	data := sample(t)
	for name, r := range map[string]io.Reader{
		"at once":        bytes.NewReader(data),
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(data)),
		"end with bytes": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		got, err := Read(r)
		if diff := cmp.Diff(sampleInfo, got); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got\n%s", name, err, diff)
		}
	}
}

func TestReadAgreesWithRPM(t *testing.T) {
	for _, program := range []string{"rpmbuild", "rpm"} {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is missing: install rpm", program)
		}
		t.Skipf("%s is missing: install rpm", program)
	}
	spec, err := os.ReadFile("testdata/sample.spec")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(string) string{
		"with everything":      func(s string) string { return s },
		"without an epoch":     func(s string) string { return strings.Replace(s, "Epoch: 1\n", "", 1) },
		"without a vendor":     func(s string) string { return strings.Replace(s, "Vendor:", "#", 1) },
		"with very many files": func(s string) string { return strings.Replace(s, "%files\n", manyFiles, 1) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			file := buildRPM(t, change(string(spec)))
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := Read(f)
			if err != nil {
				t.Fatal(err)
			}
			const format = "%{NAME}|%{VERSION}|%{RELEASE}|%{EPOCHNUM}|%{ARCH}|%{SUMMARY}|%|VENDOR?{%{VENDOR}}|"
			out, err := exec.Command("rpm", "-qp", "--dbpath", t.TempDir(), "--qf", format, file).Output()
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Split(string(out), "|")
			want := Info{Name: said[0], Version: said[1], Release: said[2], Arch: said[4], Summary: said[5], Vendor: said[6]}
			if said[3] == "1" {
				want.Epoch = 1
			} else if said[3] != "0" {
				t.Fatalf("rpm says epoch %q", said[3])
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-rpm +Read\n%s", diff)
			}
		})
	}
}

func TestReadWhatIsWrittenByHand(t *testing.T) {
	tests := map[string]struct {
		rpm  []byte
		want Info
	}{
		"with the least that a package has": {rpm(valid()...), minimalInfo},
		"with the first of several translations": {
			rpm(append(valid(), entry{tagSummary, typeTranslated, 2, "ship\x00skepp\x00"})...),
			Info{Name: "a", Version: "1", Release: "2", Arch: "noarch", Summary: "ship"}},
		"with a summary that is no UTF-8": {
			rpm(append(valid(), entry{tagSummary, typeString, 1, "\xc5berg\x00"})...),
			Info{Name: "a", Version: "1", Release: "2", Arch: "noarch", Summary: "\uFFFDberg"}},
		"with the greatest epoch": {
			rpm(append(valid(), entry{tagEpoch, typeInt32, 1, "\xff\xff\xff\xff"})...),
			Info{Name: "a", Version: "1", Release: "2", Arch: "noarch", Epoch: 1<<32 - 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Read(bytes.NewReader(test.rpm))
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

func TestReadRefusesWhatIsNoPackage(t *testing.T) {
	good := rpm(valid()...)
	// Where things are in good: its signature header is empty.
	const (
		signature = leadSize
		main      = signature + 16
		index     = main + 16
	)
	set := func(at int, value uint32) []byte {
		data := bytes.Clone(good)
		binary.BigEndian.PutUint32(data[at:], value)
		return data
	}
	tests := map[string]struct {
		rpm  []byte
		want string
	}{
		"nothing":                                {nil, "read lead: EOF"},
		"a text":                                 {bytes.Repeat([]byte("#!/bin/sh\n"), 20), "not an RPM package"},
		"a format of the future":                 {set(4, 7<<24), "package format 7"},
		"a source package":                       {set(4, 3<<24|1), "source package"},
		"no signature header":                    {set(signature, 0), "read signature header: no header"},
		"a signature header beyond the limit":    {set(signature+12, maxStore+1), "read signature header: it has"},
		"a signature header beyond the file":     {set(signature+12, maxStore), "read signature header: unexpected EOF"},
		"no header":                              {set(main, 0), "read header: no header"},
		"more entries than allowed":              {set(main+8, maxEntries+1), "read header: it has"},
		"more entries than there are":            {set(main+8, maxEntries), "read header: index: unexpected EOF"},
		"a store beyond the limit":               {set(main+12, maxStore+1), "read header: it has"},
		"a store beyond the file":                {set(main+12, maxStore), "read header: store: unexpected EOF"},
		"a value outside the store":              {set(index+8, 1<<31), "points outside"},
		"no values where one must be":            {set(index+12, 0), "points outside"},
		"a number for a name":                    {set(index+4, typeInt32), "is no string"},
		"a string without an end":                {rpm(append(valid(), entry{tagVendor, typeString, 1, "endless"})...), "is no string"},
		"an epoch that is a string":              {rpm(append(valid(), entry{tagEpoch, typeString, 1, "1\x00"})...), "is no number"},
		"an epoch without all its bytes":         {rpm(append(valid(), entry{tagEpoch, typeInt32, 1, "\x00\x01"})...), "is no number"},
		"a tag twice":                            {rpm(append(valid(), entry{tagName, typeString, 1, "b\x00"})...), "is there twice"},
		"no name":                                {rpm(valid()[1:]...), `name of the package is ""`},
		"a name that is an option":               {rpm(changed(0, "--nodeps\x00")...), "name of the package"},
		"a version with a dash":                  {rpm(changed(1, "1-2\x00")...), "version of the package"},
		"no release":                             {rpm(changed(2, "\x00")...), "release of the package"},
		"an architecture that is a path":         {rpm(changed(3, "../x\x00")...), "architecture of the package"},
		"a file that ends after the lead":        {good[:leadSize], "read signature header: unexpected EOF"},
		"a file that ends within the last value": {good[:len(good)-5], "read header: store: unexpected EOF"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read(bytes.NewReader(test.rpm))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestReadWrapsTheReadersError(t *testing.T) {
	broken := errors.New("cable pulled")
	good := rpm(valid()...)
	for cut := range good {
		if _, err := Read(io.MultiReader(bytes.NewReader(good[:cut]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	data, err := os.ReadFile("testdata/sample.rpm")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(rpm(valid()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := Read(bytes.NewReader(data))
		if err == nil && (info.Name == "" || info.Name[0] == '-' || info.Version == "" || info.Release == "" || info.Arch == "") {
			t.Errorf("no error, but %+v", info)
		}
	})
}

var minimalInfo = Info{Name: "a", Version: "1", Release: "2", Arch: "noarch"}

type entry struct {
	tag, kind, count uint32
	value            string
}

func valid() []entry {
	return []entry{
		{tagName, typeString, 1, "a\x00"}, {tagVersion, typeString, 1, "1\x00"},
		{tagRelease, typeString, 1, "2\x00"}, {tagArch, typeString, 1, "noarch\x00"},
	}
}

func changed(i int, value string) []entry {
	entries := valid()
	entries[i].value = value
	return entries
}

// rpm is a package of a lead, an empty signature header, and a header of the entries.
func rpm(entries ...entry) []byte {
	lead := make([]byte, leadSize)
	copy(lead, "\xED\xAB\xEE\xDB\x03")
	return append(append(lead, headerOf()...), headerOf(entries...)...)
}

func headerOf(entries ...entry) []byte {
	var index []byte
	var store string
	for _, e := range entries {
		for _, v := range []uint32{e.tag, e.kind, uint32(len(store)), e.count} {
			index = binary.BigEndian.AppendUint32(index, v)
		}
		store += e.value
	}
	b := []byte("\x8E\xAD\xE8\x01\x00\x00\x00\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	return append(append(b, index...), store...)
}

func sample(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/sample.rpm")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const manyFiles = `%install
mkdir -p %{buildroot}/opt/many
cd %{buildroot}/opt/many
seq -f file-with-a-long-name-%05g 2000 | xargs touch
%files
/opt/many
`

func buildRPM(t *testing.T, spec string) string {
	t.Helper()
	dir := t.TempDir()
	specFile := filepath.Join(dir, "sample.spec")
	if err := os.WriteFile(specFile, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("rpmbuild", "-bb", "--dbpath", filepath.Join(dir, "db"),
		"--define", "_topdir "+filepath.Join(dir, "top"), specFile).CombinedOutput()
	if err != nil {
		t.Fatalf("rpmbuild: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "top", "RPMS", "*", "*.rpm"))
	if err != nil || len(files) != 1 {
		t.Fatalf("rpmbuild made %q, %v", files, err)
	}
	return files[0]
}

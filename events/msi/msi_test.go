package msi

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sampleCode = "{7B1B7F5E-3C1D-4D2C-9E0E-5A6B7C8D9E0F}"

func TestReadTheSamplePackage(t *testing.T) {
	data := sample(t)
	got, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	two, one := "2", "1"
	want := Info{
		ProductCode:       sampleCode,
		UpgradeCode:       "{0A1B2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D}",
		ProductName:       "Chandler Sample",
		ProductVersion:    "2.10.3",
		Manufacturer:      "Skeppshandlare Åberg",
		AllUsers:          &two,
		MSIInstallPerUser: &one,
		Platform:          "x64",
		Properties: map[string]string{
			"ALLUSERS": "2", "MSIINSTALLPERUSER": "1", "Manufacturer": "Skeppshandlare Åberg", "ProductCode": sampleCode,
			"ProductLanguage": "1033", "ProductName": "Chandler Sample", "ProductVersion": "2.10.3",
			"UpgradeCode": "{0A1B2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D}",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// endingReader says io.EOF with every read, as the last one of an io.ReaderAt may.
type endingReader struct{ *bytes.Reader }

func (r endingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

func TestReadFromAReaderThatEndsWithTheLastBytes(t *testing.T) {
	data := sample(t)
	if info, err := Read(endingReader{bytes.NewReader(data)}, int64(len(data))); err != nil || info.ProductCode != sampleCode {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestReadAgreesWithMsiinfo(t *testing.T) {
	tests := map[string]struct {
		arch   string
		source func(string) string // changes to the sample's source
		build  func(t *testing.T, dir string) []string
		want   func(t *testing.T, info Info)
	}{
		"for a 64-bit package": {arch: "x64", want: func(t *testing.T, info Info) {
			if info.Platform != "x64" {
				t.Errorf("platform is %q", info.Platform)
			}
		}},
		"for a 32-bit package that sets no scope": {
			arch: "x86",
			source: func(s string) string {
				s = strings.Replace(s, `<Property Id="ALLUSERS" Value="2"/>`, "", 1)
				return strings.Replace(s, `<Property Id="MSIINSTALLPERUSER" Value="1"/>`, "", 1)
			},
			want: func(t *testing.T, info Info) {
				if info.Platform != "Intel" || info.AllUsers != nil || info.MSIInstallPerUser != nil {
					t.Errorf("platform %q, ALLUSERS %v, MSIINSTALLPERUSER %v", info.Platform, info.AllUsers, info.MSIInstallPerUser)
				}
			},
		},
		"for more strings than two bytes can number": {
			arch: "x64",
			build: func(t *testing.T, dir string) []string {
				var table strings.Builder
				table.WriteString("Name\r\ns72\r\nMany\tName\r\n")
				for i := range 70000 {
					table.WriteString("n" + strconv.Itoa(i) + "\r\n")
				}
				return []string{"-i", writeTable(t, dir, table.String())}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := buildMSI(t, dir, test.arch, test.source)
			if test.build != nil {
				run(t, "msibuild", append([]string{file}, test.build(t, dir)...)...)
			}
			info := readFile(t, file)
			if diff := cmp.Diff(exported(t, file), info.Properties); diff != "" {
				t.Errorf("-msiinfo +Read\n%s", diff)
			}
			if test.want != nil {
				test.want(t, info)
			}
		})
	}
}

// TestReadStringsOfMoreThan64KiB does not ask msiinfo, which does not read what msibuild writes here.
func TestReadStringsOfMoreThan64KiB(t *testing.T) {
	dir := t.TempDir()
	file := buildMSI(t, dir, "x64", nil)
	long := strings.Repeat("licence ", 20000)
	run(t, "msibuild", file, "-i", writeTable(t, dir, "Property\tValue\r\ns72\tl0\r\nProperty\tProperty\r\nLONG\t"+long+
		"\r\nProductCode\t"+sampleCode+"\r\nProductName\tAfter\r\n"))
	info := readFile(t, file)
	if info.Properties["LONG"] != long || info.ProductName != "After" || info.ProductCode != sampleCode {
		t.Errorf("LONG has %d bytes, want %d; ProductName is %q", len(info.Properties["LONG"]), len(long), info.ProductName)
	}
}

func TestReadRefusesWhatIsNoInstallationPackage(t *testing.T) {
	good := sample(t)
	tests := map[string]struct {
		data []byte
		want string
	}{
		"nothing":                         {nil, "open installer database"},
		"a text":                          {bytes.Repeat([]byte("MZ not an MSI\n"), 100), "bad signature"},
		"a file cut in the middle":        {good[:len(good)/2], "EOF"},
		"no GUID as product code":         {replaced(t, good, sampleCode, strings.Repeat("x", len(sampleCode))), "ProductCode is"},
		"no GUID as upgrade code":         {replaced(t, good, "{0A1B2C3D-", "(0A1B2C3D-"), "UpgradeCode is"},
		"no table of properties":          {renamed(t, good, tableStream("Property"), tableStream("Propertx")), "table Property: is missing"},
		"no string pool":                  {renamed(t, good, tableStream("_StringPool"), tableStream("_StringPoox")), "table _StringPool: is missing"},
		"no summary information":          {renamed(t, good, "SummaryInf", "SummaryIng"), "read summary information: is missing"},
		"two streams of one name":         {renamed(t, good, tableStream("_Columns"), tableStream("Property")), "two streams are called"},
		"fewer strings than lengths":      {resized(t, good, tableStream("_StringData"), 1500), "do not agree"},
		"half a row":                      {resized(t, good, tableStream("Property"), 30), "no whole number of rows"},
		"a column where the other begins": {resized(t, good, tableStream("Property"), 16), "ProductCode is"},
		"a cut property set":              {resized(t, good, "SummaryInformation", 60), "truncated or inconsistent"},
		"a stream larger than any":        {resized(t, good, tableStream("_StringPool"), 1<<31), "allowed are"},
		"a stream larger than the file":   {resized(t, good, tableStream("_StringData"), 60<<20), "table _StringData"},
		"storages nested without end":     {nestedStorages(16 << 10), "directory is larger"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read(bytes.NewReader(test.data), int64(len(test.data)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := Read(bytes.NewReader(good), 5<<30); err == nil || !strings.Contains(err.Error(), "allowed are") {
		t.Errorf("a file of 5 GiB: error is %v", err)
	}
}

func TestReadBelievesEitherLayoutOfLongStrings(t *testing.T) {
	const size = 0x2_0003
	tests := map[string][]byte{
		"the upper half of the length last":  {2, 0, 1, 0 /**/, 0, 0, 7, 0, 3, 0, 2, 0 /**/, 0, 0, 0, 0 /**/, 5, 0, 1, 0},
		"the upper half of the length first": {2, 0, 1, 0 /**/, 0, 0, 2, 0, 3, 0, 7, 0 /**/, 0, 0, 0, 0 /**/, 5, 0, 1, 0},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			ends := stringEnds(entries, size+7, 6)
			if ends == nil {
				ends = stringEnds(entries, size+7, 2)
			}
			if diff := cmp.Diff([]uint32{0, 2, size + 2, size + 2, size + 7}, ends); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDecodeByCodePage(t *testing.T) {
	tests := map[string]struct {
		raw      string
		codePage uint32
		want     string
	}{
		"Western European":                     {"\xc5berg", 1252, "Åberg"},
		"Cyrillic":                             {"\xcf\xf0\xe8\xe2\xe5\xf2", 1251, "Привет"},
		"Japanese":                             {"\x93\xfa\x96\x7b", 932, "日本"},
		"UTF-8":                                {"Åberg", 65001, "Åberg"},
		"neutral that is UTF-8 after all":      {"Åberg", 0, "Åberg"},
		"neutral that is Western European":     {"\xc5berg", 0, "Åberg"},
		"ASCII in a code page nobody knows of": {"plain", 4711, "plain"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := decode([]byte(test.raw), test.codePage); err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
	for name, codePage := range map[string]uint32{"unknown code page": 4711, "invalid UTF-8": 65001} {
		if got, err := decode([]byte("\xc5berg"), codePage); err == nil {
			t.Errorf("%s gives %q", name, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	data, err := os.ReadFile("testdata/sample.msi")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:1024])
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := Read(bytes.NewReader(data), int64(len(data)))
		if err == nil && (!guid.MatchString(info.ProductCode) || info.Platform == "") {
			t.Errorf("no error, but %+v", info)
		}
	})
}

func sample(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/sample.msi")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// utf16le is how names stand in the directory.
func utf16le(s string) string {
	var b []byte
	for _, r := range s {
		b = binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	return string(b)
}

func replaced(t *testing.T, data []byte, old, new string) []byte {
	t.Helper()
	if len(old) != len(new) || !bytes.Contains(data, []byte(old)) {
		t.Fatalf("cannot put %q for %q", new, old)
	}
	return bytes.ReplaceAll(data, []byte(old), []byte(new))
}

func renamed(t *testing.T, data []byte, old, new string) []byte {
	t.Helper()
	return replaced(t, data, utf16le(old), utf16le(new))
}

// resized changes the size that the directory states for a stream.
func resized(t *testing.T, data []byte, stream string, size uint32) []byte {
	t.Helper()
	at := bytes.Index(data, []byte(utf16le(stream)))
	if at < 0 {
		t.Fatalf("no stream %q", stream)
	}
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint32(data[at&^127+120:], size)
	return data
}

// nestedStorages is a compound file whose directory has n storages, each within the one before it.
func nestedStorages(n int) []byte {
	const sector, none, end = 512, 0xFFFFFFFF, 0xFFFFFFFE
	directory := n / (sector / 128)
	fat := (directory*4 + sector - 1) / sector
	data := make([]byte, sector*(1+directory+fat))
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(data[at:], v) }
	binary.LittleEndian.PutUint64(data, 0xE11AB1A1E011CFD0)
	data[26], data[30] = 3, 9 // version, and the sector size as a power of two
	put(44, uint32(fat))
	put(60, end) // no small streams
	for i := range fat {
		put(76+4*i, uint32(directory+i))
	}
	for i := range n {
		entry := sector + 128*i
		copy(data[entry:], utf16le("Root Entry"))
		data[entry+64], data[entry+66] = 22, 1
		put(entry+68, none)
		put(entry+72, none)
		put(entry+76, uint32(i+1))
		put(entry+116, end)
	}
	for i := range directory {
		put(sector*(1+directory)+4*i, uint32(i+1))
	}
	put(sector*(1+directory)+4*(directory-1), end)
	put(sector+128*(n-1)+76, none)
	return data
}

func buildMSI(t *testing.T, dir, arch string, change func(string) string) string {
	t.Helper()
	need(t, "wixl", "wixl and msitools")
	need(t, "msiinfo", "wixl and msitools")
	need(t, "msibuild", "wixl and msitools")
	source, err := os.ReadFile("testdata/sample.wxs")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	if change != nil {
		text = change(text)
	}
	write(t, filepath.Join(dir, "sample.wxs"), text)
	write(t, filepath.Join(dir, "readme.txt"), "hello\n")
	file := filepath.Join(dir, "sample.msi")
	run(t, "wixl", "-a", arch, "-o", file, filepath.Join(dir, "sample.wxs"))
	return file
}

func need(t *testing.T, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatalf("%s is missing: install %s", program, install)
	}
	t.Skipf("%s is missing: install %s", program, install)
}

func writeTable(t *testing.T, dir, text string) string {
	t.Helper()
	file := filepath.Join(dir, "table.idt")
	write(t, file, text)
	return file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, stderr.String())
	}
	return string(out)
}

func readFile(t *testing.T, file string) Info {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	info, err := Read(f, stat.Size())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// exported is the Property table as msiinfo prints it: three lines of header, then name, tab, value.
func exported(t *testing.T, file string) map[string]string {
	t.Helper()
	properties := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(run(t, "msiinfo", "export", file, "Property"), "\r\n"), "\r\n")
	for _, line := range lines[3:] {
		name, value, _ := strings.Cut(line, "\t")
		properties[name] = value
	}
	return properties
}

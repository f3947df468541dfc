package msilog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/supervise/supervisetest"
)

// started and stopped are how every log begins and ends.
const (
	started = "=== Verbose logging started: 1/2/2027  10:00:00  Build type: SHIP UNICODE 5.00.10011.00  Calling process: C:\\Windows\\System32\\msiexec.exe ===\r\n" +
		"MSI (c) (A4:C8) [10:00:00:123]: Resetting cached policy values\r\n" +
		"MSI (s) (B0:54) [10:00:00:456]: ******* RunEngine:\r\n" +
		"Action start 10:00:00: INSTALL.\r\n"
	stopped = "=== Verbose logging stopped: 1/2/2027  10:00:09 ===\r\n"
)

func failedWith(code int) string {
	return "Action ended 10:00:08: INSTALL. Return value 3.\r\n" +
		"Property(S): PASSWORD = swordfish\r\n" +
		"MSI (s) (B0:54) [10:00:08:001]: Product: Example -- Installation failed.\r\n" +
		fmt.Sprintf("MSI (s) (B0:54) [10:00:08:002]: MainEngineThread is returning %d\r\n", code) +
		fmt.Sprintf("MSI (c) (A4:C8) [10:00:08:123]: MainEngineThread is returning %d\r\n", code) + stopped
}

const program = "CustomAction RunSetup returned actual error code 2 (note this may not be 100% accurate if translation happened inside sandbox)\r\n" +
	"MSI (s) (B0:54) [10:00:02:700]: Note: 1: 1722 2: RunSetup 3: C:\\setup.exe 4: /q \r\n" +
	"Error 1722. There is a problem with this Windows Installer package. A program run as part of the setup did not finish as expected. Action RunSetup, location: C:\\setup.exe, command: /q \r\n" +
	"MSI (s) (B0:54) [10:00:02:789]: Product: Example -- Error 1722. There is a problem with this Windows Installer package. A program run as part of the setup did not finish as expected. Action RunSetup, location: C:\\setup.exe, command: /q \r\n"

func TestTheFirstErrorIsExplained(t *testing.T) {
	for name, c := range map[string]struct{ log, want string }{
		"a program of the package": {started + program + "Action ended 10:00:03: InstallFinalize. Return value 3.\r\n" + failedWith(1603),
			`Windows Installer stopped in InstallFinalize: Error 1722: There is a problem with this Windows Installer package. A program run as part of the setup did not finish as expected. Action RunSetup, location: C:\setup.exe, command: /q; custom action RunSetup returned 2`},
		"a custom action that says nothing else": {started + "Action start 10:00:01: CheckLicence.\r\nCustomAction CheckLicence returned actual error code 1603 (note this may not be 100% accurate if translation happened inside sandbox)\r\n" +
			"Action ended 10:00:01: CheckLicence. Return value 3.\r\n" + failedWith(1603),
			"Windows Installer stopped in CheckLicence: custom action CheckLicence returned 1603"},
		"a condition of the package": {started + "Action start 10:00:01: LaunchConditions.\r\nThis application needs Windows 12.\r\nMSI (c) (A4:C8) [10:00:01:100]: Product: Example -- This application needs Windows 12.\r\n\r\n" +
			"Action ended 10:00:01: LaunchConditions. Return value 3.\r\n" + failedWith(1603),
			"Windows Installer stopped in LaunchConditions: This application needs Windows 12"},
		"a service that does not start, and errors while all is taken back": {started + "MSI (s) (B0:54) [10:00:05:001]: Product: Example -- Error 1920. Service 'Example' (Example) failed to start. Verify that you have sufficient privileges to start system services.\r\n" +
			"MSI (s) (B0:54) [10:00:05:002]: User policy value 'DisableRollback' is 0\r\nAction ended 10:00:05: InstallFinalize. Return value 3.\r\n" +
			"MSI (s) (B0:54) [10:00:06:001]: Product: Example -- Error 1911. Could not register type library.\r\n" + failedWith(1603),
			"Windows Installer stopped in InstallFinalize: Error 1920: Service 'Example' (Example) failed to start. Verify that you have sufficient privileges to start system services"},
		"an error that the package ignores, then another": {started + "CustomAction Telemetry returned actual error code 1603 but will be translated to success due to continue marking\r\n" +
			"CustomAction Cleanup returned actual error code 1 (note this may not be 100% accurate if translation happened inside sandbox)\r\nAction ended 10:00:02: Cleanup. Return value 1.\r\n" +
			"Info 1603. The file C:\\a.dll is being held in use. \r\nWarning 1909. Could not create shortcut Example.lnk.\r\n" +
			"DEBUG: Error 2826:  Control Line1 on dialog Welcome extends beyond the boundaries of the dialog to the right by 5 pixels\r\n" +
			"Error 1304. Error writing to file: C:\\Program Files\\Example\\a.dll.   Verify that you have access to that directory.\r\nAction ended 10:00:04: InstallFiles. Return value 3.\r\n" + failedWith(1603),
			`Windows Installer stopped in InstallFiles: Error 1304: Error writing to file: C:\Program Files\Example\a.dll.   Verify that you have access to that directory`},
		"an action without any word": {started + "Action ended 10:00:04: CostFinalize. Return value 3.\r\n" + failedWith(1603), "Windows Installer stopped in CostFinalize"},
		"a German machine": {started + "CustomAction Starten returned actual error code 1 (note this may not be 100% accurate if translation happened inside sandbox)\r\n" +
			"Info 1603. Die Datei wird verwendet.\r\nWarnung 1909. Verknüpfung kann nicht erstellt werden.\r\nFehler 1722. Es liegt ein Problem mit diesem Windows Installer-Paket vor.\r\nMSI (s) (B0:54) [10:00:02:789]: Produkt: Beispiel -- Fehler 1722. Es liegt ein Problem mit diesem Windows Installer-Paket vor.\r\n" +
			"Aktion beendet um 10:00:03: InstallFinalize. Rückgabewert 3.\r\nMSI (s) (B0:54) [10:00:08:002]: MainEngineThread is returning 1603\r\n",
			"Windows Installer stopped in InstallFinalize: Fehler 1722: Es liegt ein Problem mit diesem Windows Installer-Paket vor; custom action Starten returned 1"},
		"a French machine": {started + "MSI (s) (B0:54) [10:00:02:789]: Produit : Exemple -- Erreur 1925. Vous ne disposez pas de privilèges suffisants.\r\nFin de l'action 10:00:03 : InstallValidate. Valeur renvoyée : 3.\r\n",
			"Windows Installer stopped in InstallValidate: Erreur 1925: Vous ne disposez pas de privilèges suffisants"},
		"a package that cannot be opened": {started + "MSI (c) (A4:C8) [10:00:01:001]: Note: 1: 2203 2: C:\\a.msi 3: -2147287038\r\nMSI (c) (A4:C8) [10:00:01:002]: MainEngineThread is returning 1619\r\n" + stopped,
			"Windows Installer ended with 1619"},
		"an error in a log that breaks off": {started + "Error 1706. No valid source could be found for product Example.\r\n", "Windows Installer: Error 1706: No valid source could be found for product Example"},
		"somebody cancels":                  {started + "Action ended 10:00:03: WelcomeDialog. Return value 2.\r\nMSI (c) (A4:C8) [10:00:08:123]: MainEngineThread is returning 1602\r\n", "Windows Installer stopped in WelcomeDialog"},
		"a success": {started + "CustomAction Probe returned actual error code 1 (note this may not be 100% accurate if translation happened inside sandbox)\r\nError 1234. Nothing that matters.\r\n" +
			"Action ended 10:00:04: INSTALL. Return value 1.\r\nMSI (s) (B0:54) [10:00:08:001]: Product: Example -- Installation completed successfully.\r\nMSI (s) (B0:54) [10:00:08:002]: MainEngineThread is returning 0\r\n" + stopped, ""},
		"a success that breaks off":      {started + "MSI (s) (B0:54) [10:00:08:001]: Product: Example -- Installation completed successfully.\r\n", ""},
		"a success that wants a restart": {started + "Error 1234. Nothing that matters.\r\nMSI (c) (A4:C8) [10:00:08:002]: MainEngineThread is returning 3010\r\n", ""},
		"a log of something else":        {"begin\nError: it went wrong\nexit status 7\n", ""},
		"nothing":                        {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for encoding, data := range map[string][]byte{
				"UTF-8": []byte(c.log), "UTF-16 with its mark": wide(c.log, true), "UTF-16 without it": wide(c.log, false), "UTF-8 with its mark": append([]byte{0xEF, 0xBB, 0xBF}, c.log...), "ANSI": latin(c.log),
			} {
				report, err := parse(bytes.NewReader(data), 8<<10)
				if report.Explanation != c.want || err != nil {
					t.Errorf("%s: %v, %q\nwant %q", encoding, err, report.Explanation, c.want)
				}
				if text := strings.Join(report.Lines, "\n"); strings.Contains(text, "swordfish") || len(text) > 8<<10 || c.log != "" && text == "" {
					t.Errorf("%s: lines\n%s", encoding, text)
				}
			}
		})
	}
}

func TestTheLinesAroundTheErrorAndTheLastAreKept(t *testing.T) {
	var log strings.Builder
	line := func(i int) string { return fmt.Sprintf("MSI (s) (B0:54) [10:00:02:000]: line %d", i) }
	for i := 1; i <= 2000; i++ {
		switch i {
		case 100:
			log.WriteString("CustomAction Probe returned actual error code 1 (note)\r\n")
		case 110:
			log.WriteString("Action ended 10:00:02: Probe. Return value 1.\r\n")
		case 500:
			log.WriteString("Error 1722. It failed.\r\n")
		case 600:
			log.WriteString("Action ended 10:00:03: InstallFinalize. Return value 3.\r\n")
		default:
			log.WriteString(line(i) + "\r\n")
		}
	}
	want := []string{"… 484 lines left out …"}
	for i := 485; i < 500; i++ {
		want = append(want, line(i))
	}
	want = append(want, "Error 1722. It failed.")
	for i := 501; i < 500+linesAfter; i++ {
		want = append(want, line(i))
	}
	want = append(want, "… 88 lines left out …", "Action ended 10:00:03: InstallFinalize. Return value 3.", line(601), line(602), line(603), line(604), line(605), "… 1355 lines left out …")
	for i := 1961; i <= 2000; i++ {
		want = append(want, line(i))
	}
	report, err := parse(strings.NewReader(log.String()), 64<<10)
	if diff := cmp.Diff(want, report.Lines); diff != "" || err != nil {
		t.Errorf("%v: -want +got\n%s", err, diff)
	}
	for _, size := range []int{-1, 0, 50, 100, 500, 1000, 5000} {
		report, err := parse(strings.NewReader(log.String()), size)
		text := strings.Join(append(report.Lines, ""), "\n")
		if err != nil || len(text) > max(size, 0) || size >= 500 && !(strings.Contains(text, "Error 1722.") && strings.Contains(text, "line 2000")) {
			t.Errorf("of %d bytes: %v\n%s", size, err, text)
		}
	}
}

func TestAFileIsReadFromItsOwnDirectoryAlone(t *testing.T) {
	dir, elsewhere := supervisetest.TempDir(t), supervisetest.TempDir(t)
	for path, text := range map[string]string{filepath.Join(elsewhere, "secret"): "secret", filepath.Join(dir, "program.log"): "Error 1722. It failed.\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Read(filepath.Join(dir, "program.log"), 1000)
	if diff := cmp.Diff(Report{"Windows Installer: Error 1722: It failed", []string{"Error 1722. It failed."}}, report); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	if runtime.GOOS == "windows" {
		return // links need rights there
	}
	if err := os.Symlink(filepath.Join(elsewhere, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(elsewhere, "secret"), filepath.Join(dir, "name")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "name", ".", "nothing"} {
		if report, err := Read(filepath.Join(dir, name), 1000); err == nil {
			t.Errorf("%s was read: %+v", name, report)
		}
	}
}

func TestOfAHugeFileTheBeginningAndTheEndAreRead(t *testing.T) {
	const size = maxHead + 3*maxTail + 1
	r := whole(zeros{size}, size)
	n, err := io.Copy(io.Discard, r)
	if n != maxHead+maxTail+1 || err != nil { // the end begins at an even byte
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, whole(zeros{1000}, 1000)); n != 1000 || err != nil {
		t.Errorf("of a small file %d bytes, %v", n, err)
	}
}

func TestALongLineIsCutAtARune(t *testing.T) {
	for name, data := range map[string][]byte{
		"UTF-8": []byte("a" + strings.Repeat("å", maxLine) + "\nlast"), "UTF-16": wide("a"+strings.Repeat("å", maxLine)+"\nlast", true), "ANSI": latin("a" + strings.Repeat("å", maxLine) + "\nlast"),
	} {
		report, err := parse(bytes.NewReader(data), 100<<10)
		if err != nil || len(report.Lines) != 2 || report.Lines[1] != "last" {
			t.Fatalf("%s: %v, %d lines", name, err, len(report.Lines))
		}
		if line := report.Lines[0]; strings.Trim(line[1:], "å") != "" || len(line) < maxLine-2 || len(line) > maxLine {
			t.Errorf("%s: %d bytes %.20q…", name, len(line), line)
		}
	}
}

// FuzzParse shows that no bytes do worse than an error, and that what comes out is clean and within its bounds.
func FuzzParse(f *testing.F) {
	f.Add([]byte(started + program + failedWith(1603)))
	f.Add(wide(started+program, true))
	f.Add([]byte("\xff\xfe\x00"))
	f.Add([]byte("Error 1722. \x1b[31m\u202e\nAction ended 10:00:00: A. x 3.\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		report, err := parse(bytes.NewReader(data), 2000)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(report.Lines, "")
		if len(text)+len(report.Lines) > 2000 || len(report.Explanation) > maxSentence {
			t.Errorf("%d bytes of lines, %d of explanation", len(text), len(report.Explanation))
		}
		for _, r := range text + report.Explanation {
			if r != '\t' && !unicode.IsGraphic(r) {
				t.Errorf("%U came through", r)
			}
		}
		if !utf8.ValidString(text + report.Explanation) {
			t.Error("invalid UTF-8")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := wide(started+strings.Repeat("MSI (s) (B0:54) [10:00:02:123]: Executing op: ComponentRegister(ComponentId={7B1B7F5E-3C1D-4D2C-9E0E-5A6B7C8D9E0F},KeyPath=C:\\Program Files\\Example\\a.dll,State=3,,Disk=1,SharedDllRefCount=0,BinaryType=1)\r\n", 20_000)+program+failedWith(1603), true)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if report, err := parse(bytes.NewReader(data), 32<<10); err != nil || report.Explanation == "" {
			b.Fatal(report, err)
		}
	}
}

func wide(s string, mark bool) []byte {
	var b []byte
	if mark {
		b = append(b, 0xFF, 0xFE)
	}
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

func latin(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

type zeros struct{ size int64 }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off+int64(len(p)) > z.size {
		return max(0, int(z.size-off)), io.EOF
	}
	return len(p), nil
}

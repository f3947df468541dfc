package restart

import "os"

func command(why string) (name string, args []string) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return "systemctl", []string{"reboot", "--message=" + why}
	}
	return "shutdown", []string{"-r", "now", why}
}

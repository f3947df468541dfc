package restart

func command(why string) (name string, args []string) {
	return "shutdown", []string{"-r", "now", why}
}

package logon

func environment(Session) []string { return nil }

func desktop(Session, string) ([]string, string) { return nil, "" }

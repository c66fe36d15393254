package rest

// table gathers the routes of every resource that cfg can serve.
func table(cfg Config) []route {
	var all []route
	all = append(all, root{}.routes()...)
	return all
}

# terraform test -test-directory=examples/tests -filter=examples/tests/container.tftest.hcl -var-file=examples/container.tfvars
mock_provider "aws" {
  source = "./tests/mocks"
}

run "applied" {
  assert {
    condition     = output.database == null && contains(output.settings, "database.host=lablink.example.org")
    error_message = "the database is a container on the allocator"
  }
  assert {
    condition     = contains(output.settings, "pool.programs=[python3]")
    error_message = "people may run Python"
  }
}

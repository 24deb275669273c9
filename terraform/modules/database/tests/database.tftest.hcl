# What the database promises, against a mock of AWS.
mock_provider "aws" {
  mock_resource "aws_db_instance" {
    defaults = {
      address            = "lablink-test.abc.eu-central-1.rds.amazonaws.com"
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds", kms_key_id = "k", secret_status = "active" }]
    }
  }
}

variables {
  name       = "lablink-test"
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-1", "subnet-2"]
  clients    = { allocator = "sg-allocator", fleet = "sg-fleet" }
}

run "encrypted" {
  assert {
    condition     = aws_db_instance.this.storage_encrypted
    error_message = "storage is encrypted, and with it snapshots and logs"
  }
}

run "not_public" {
  assert {
    condition     = !aws_db_instance.this.publicly_accessible
    error_message = "the server has no public address"
  }
  assert {
    condition     = aws_db_subnet_group.this.subnet_ids == toset(var.subnet_ids)
    error_message = "it is in the given subnets"
  }
}

run "only_clients_come_in" {
  assert {
    condition     = tomap({ for name, rule in aws_vpc_security_group_ingress_rule.this : name => rule.referenced_security_group_id }) == var.clients
    error_message = "each client's security group is admitted, and nothing else"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.this : rule.from_port == 5432 && rule.to_port == 5432 && rule.ip_protocol == "tcp" && rule.cidr_ipv4 == null && rule.cidr_ipv6 == null])
    error_message = "they are admitted to PostgreSQL's port, by group and not by address"
  }
  assert {
    condition     = aws_db_instance.this.vpc_security_group_ids == toset([aws_security_group.this.id])
    error_message = "the server is in no other security group"
  }
}

run "hub_mode_admits_only_the_allocator" {
  variables {
    clients = { allocator = "sg-allocator" }
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.this) == ["allocator"]
    error_message = "without direct mode no VM reaches the database"
  }
}

run "tls_and_settings" {
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "rds.force_ssl"]) == "1"
    error_message = "connections without TLS are refused"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "password_encryption"]) == "scram-sha-256"
    error_message = "passwords are kept as SCRAM verifiers"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "log_parameter_max_length"]) == "0"
    error_message = "a slow statement is logged without its parameters"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "shared_buffers"]) == "{DBInstanceClassMemory/32768}"
    error_message = "a quarter of memory is PostgreSQL's cache, as the guide says"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "max_connections"]) == "240"
    error_message = "there is room for a hundred VMs in direct mode"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "work_mem"]) == "GREATEST({DBInstanceClassMemory/983040},256)"
    error_message = "connections share a quarter of memory for what they sort"
  }
  assert {
    condition     = length(setsubtract(["effective_cache_size", "maintenance_work_mem", "wal_buffers", "min_wal_size", "max_wal_size", "checkpoint_completion_target", "default_statistics_target", "random_page_cost", "effective_io_concurrency", "log_min_duration_statement"], aws_db_parameter_group.this.parameter[*].name)) == 0
    error_message = "every setting of the guide is there"
  }
  assert {
    condition     = one([for each in aws_db_parameter_group.this.parameter : each.value if each.name == "authentication_timeout"]) == "5"
    error_message = "who connects and says nothing is soon shut out"
  }
  assert {
    condition     = aws_db_parameter_group.this.family == "postgres17" && aws_db_instance.this.parameter_group_name == aws_db_parameter_group.this.name
    error_message = "the settings are those of the engine's version, and are used"
  }
}

run "settings_follow_the_version" {
  variables {
    engine_version = "18.1"
  }
  assert {
    condition     = aws_db_parameter_group.this.family == "postgres18"
    error_message = "the parameter group follows engine_version"
  }
}

run "backups" {
  assert {
    condition     = aws_db_instance.this.backup_retention_period >= 7 && aws_db_instance.this.backup_window == "03:00-04:00" && !aws_db_instance.this.delete_automated_backups
    error_message = "a week can be gone back to, also after the server is gone"
  }
  assert {
    condition     = aws_db_instance.this.maintenance_window == "mon:04:00-mon:05:00"
    error_message = "patches come in their window"
  }
}

run "its_log_is_kept_for_a_time" {
  assert {
    condition     = { for name, group in aws_cloudwatch_log_group.this : group.name => group.retention_in_days } == { "/aws/rds/instance/lablink-test/postgresql" = 30, "/aws/rds/instance/lablink-test/upgrade" = 30 }
    error_message = "who connected when is known for thirty days, and not for ever"
  }
  assert {
    condition     = toset(aws_db_instance.this.enabled_cloudwatch_logs_exports) == toset(keys(aws_cloudwatch_log_group.this))
    error_message = "and nothing is logged elsewhere"
  }
}

run "a_key_of_ones_own_encrypts_all_of_it" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0"
  }
  assert {
    condition     = aws_db_instance.this.kms_key_id == var.kms_key_arn && aws_db_instance.this.master_user_secret_kms_key_id == var.kms_key_arn && aws_db_instance.this.performance_insights_kms_key_id == var.kms_key_arn
    error_message = "storage, master password and statistics have the given key"
  }
  assert {
    condition     = output.kms_key_arn == var.kms_key_arn
    error_message = "who reads the password is told which"
  }
}

run "destroying_takes_two_steps_and_leaves_a_snapshot" {
  assert {
    condition     = aws_db_instance.this.deletion_protection
    error_message = "a destroy is refused at first"
  }
  assert {
    condition     = !aws_db_instance.this.skip_final_snapshot && can(regex("^lablink-test-final-[0-9]{14}$", aws_db_instance.this.final_snapshot_identifier))
    error_message = "a last snapshot is taken, under a name that no server before had"
  }
}

run "no_password_in_the_state" {
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null
    error_message = "RDS makes the master password and keeps it in Secrets Manager"
  }
  assert {
    condition     = output.master_secret_arn == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds"
    error_message = "the secret's name is told, not what is in it"
  }
}

run "a_standby_is_a_choice" {
  variables {
    multi_az = true
  }
  assert {
    condition     = aws_db_instance.this.multi_az
    error_message = "multi_az keeps a standby"
  }
}

run "named_after_the_deployment" {
  assert {
    condition     = aws_db_instance.this.identifier == "lablink-test" && startswith(aws_security_group.this.name_prefix, "lablink-test-")
    error_message = "everything is named after the deployment"
  }
  assert {
    condition     = output.log_group == "/aws/rds/instance/lablink-test/postgresql"
    error_message = "the log group's name is what lablink db watch-logs takes"
  }
}

run "bad_names_are_refused" {
  command = plan
  variables {
    name = "lab--link"
  }
  expect_failures = [var.name]
}

run "one_subnet_is_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-1"]
  }
  expect_failures = [var.subnet_ids]
}

run "unknown_clients_are_refused" {
  command = plan
  variables {
    clients = { everybody = "sg-1" }
  }
  expect_failures = [var.clients]
}

run "old_versions_are_refused" {
  command = plan
  variables {
    engine_version = "13.7"
  }
  expect_failures = [var.engine_version]
}

run "odd_sizes_are_refused" {
  command = plan
  variables {
    instance_class = "t3.micro"
  }
  expect_failures = [var.instance_class]
}

run "few_connections_are_refused" {
  command = plan
  variables {
    max_connections = 20
  }
  expect_failures = [var.max_connections]
}

run "shrinking_storage_is_refused" {
  command = plan
  variables {
    storage_gb = { first = 50, most = 20 }
  }
  expect_failures = [var.storage_gb]
}

run "few_backups_are_refused" {
  command = plan
  variables {
    backup_days = 1
  }
  expect_failures = [var.backup_days]
}

run "odd_windows_are_refused" {
  command = plan
  variables {
    backup_window      = "night"
    maintenance_window = "mon:24:00-mon:25:00"
    kms_key_arn        = "alias/lab"
    log_days           = 31
  }
  expect_failures = [var.backup_window, var.maintenance_window, var.kms_key_arn, var.log_days]
}

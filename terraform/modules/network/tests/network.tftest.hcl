# What the network promises, against a mock of AWS.
mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/lablink-test/flow" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/flow" }
  }
}

variables {
  name               = "lablink-test"
  availability_zones = ["eu-central-1a", "eu-central-1b"]
}

run "subnets" {
  assert {
    condition     = length(aws_subnet.public) == 2 && length(aws_subnet.private) == 2
    error_message = "each zone has a public and a private subnet"
  }
  assert {
    condition     = length(distinct(concat([for s in aws_subnet.public : s.cidr_block], [for s in aws_subnet.private : s.cidr_block]))) == 4
    error_message = "no two subnets have the same addresses"
  }
  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.map_public_ip_on_launch != true])
    error_message = "nothing gets a public address without asking for it"
  }
  assert {
    condition     = output.private_subnet_ids == [for zone in var.availability_zones : aws_subnet.private[zone].id]
    error_message = "outputs are in the order of the zones"
  }
}

run "private_subnets_only_reach_out" {
  assert {
    condition     = aws_route.private.nat_gateway_id == aws_nat_gateway.this.id && aws_route.private.gateway_id == null
    error_message = "private subnets leave through NAT, so nobody reaches into them"
  }
  assert {
    condition     = alltrue([for each in aws_route_table_association.private : each.route_table_id == aws_route_table.private.id])
    error_message = "every private subnet has the private routes"
  }
}

run "the_default_group_lets_nobody_talk" {
  assert {
    condition     = length(aws_default_security_group.this.ingress) == 0 && length(aws_default_security_group.this.egress) == 0
    error_message = "the default security group has no rule"
  }
}

run "nobody_comes_in_to_machines" {
  assert {
    condition     = alltrue([for rule in [aws_vpc_security_group_ingress_rule.endpoints] : rule.security_group_id != aws_security_group.vms.id]) && length(aws_security_group.vms.ingress) == 0
    error_message = "the machines' group has no ingress rule"
  }
  assert {
    condition     = output.vms_security_group_id == aws_security_group.vms.id
    error_message = "and is what the fleet is given"
  }
}

run "connections_are_on_record" {
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.retention_in_days == 30
    error_message = "all connections are recorded, for thirty days"
  }
}

run "endpoints_admit_this_network" {
  variables {
    interface_endpoints = ["secretsmanager"]
  }
  assert {
    condition     = aws_vpc_endpoint.interface["secretsmanager"].service_name == "com.amazonaws.eu-central-1.secretsmanager"
    error_message = "an endpoint is the region's own"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == var.cidr && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443
    error_message = "only this network reaches the endpoints, on 443"
  }
}

run "names_begin_with_the_prefix" {
  assert {
    condition     = aws_vpc.this.tags["Name"] == "lablink-test" && startswith(aws_security_group.endpoints.name_prefix, "lablink-test-")
    error_message = "everything is named after the deployment"
  }
}

run "bad_names_are_refused" {
  command = plan
  variables {
    name = "Lab_Link"
  }
  expect_failures = [var.name]
}

run "bad_addresses_are_refused" {
  command = plan
  variables {
    cidr = "10.0.0.0/8"
  }
  expect_failures = [var.cidr]
}

run "what_is_no_address_is_refused" {
  command = plan
  variables {
    cidr = "everything"
  }
  expect_failures = [var.cidr]
}

run "an_address_inside_a_network_is_refused" {
  command = plan
  variables {
    cidr = "10.42.0.1/16"
  }
  expect_failures = [var.cidr]
}

run "addresses_of_another_kind_are_refused" {
  command = plan
  variables {
    cidr = "fd00::/16"
  }
  expect_failures = [var.cidr]
}

run "one_zone_is_refused" {
  command = plan
  variables {
    availability_zones = ["eu-central-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "the_same_zone_twice_is_refused" {
  command = plan
  variables {
    availability_zones = ["eu-central-1a", "eu-central-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "odd_endpoints_are_refused" {
  command = plan
  variables {
    interface_endpoints = ["Secrets Manager"]
  }
  expect_failures = [var.interface_endpoints]
}

run "odd_days_are_refused" {
  command = plan
  variables {
    flow_log_days = 31
  }
  expect_failures = [var.flow_log_days]
}

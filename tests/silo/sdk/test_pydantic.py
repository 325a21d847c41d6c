"""Skills that have pydantic: its models as parameters and results."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, RootModel

from silo.sdk.coerce import CoercionError, coerce_arguments
from silo.sdk.encode import outcome_of
from silo.sdk.errors import InvokeFailed
from silo.sdk.schema import input_schema, output_schema
from silo.sdk.signature import Signature, read_signature

T = TypeVar("T")


class Address(BaseModel):
    city: str
    zip_code: Annotated[str, Field(alias="zip", pattern="^[0-9]{5}$")]


class Person(BaseModel):
    name: str
    addresses: list[Address] = []
    born: date | None = None


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Page(BaseModel, Generic[T]):
    items: list[T]


class Numbers(RootModel[list[int]]):
    pass


class Blob(BaseModel):
    data: bytes


def other_address() -> type[BaseModel]:
    class Address(BaseModel):
        street: str

    return Address


def other_cat() -> type:
    @dataclass
    class Cat:
        lives: int

    return Cat


def signature_of(**annotations: Any) -> Signature:
    source = f"def tool({', '.join(name for name in annotations if name != 'return')}): ..."
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # a signature with these names, whatever they are
    namespace["tool"].__annotations__.update(annotations)
    return read_signature("tool", namespace["tool"])


def schema_of(**annotations: Any) -> Any:
    schema = input_schema(signature_of(**annotations))
    Draft202012Validator.check_schema(schema)
    return schema


def test_a_model_and_what_it_refers_to_become_definitions_at_the_root():
    schema = schema_of(a=Person, b=list[Person], c=Person | None)
    assert schema["properties"]["a"] == {"$ref": "#/$defs/Person"}
    assert schema["properties"]["b"] == {"type": "array", "items": {"$ref": "#/$defs/Person"}}
    assert set(schema["$defs"]) == {"Person", "Address"}
    assert "$defs" not in schema["$defs"]["Person"]
    validator = Draft202012Validator(schema)
    person = {"name": "a", "addresses": [{"city": "b", "zip": "12345"}]}
    assert validator.is_valid({"a": person, "b": [], "c": None})
    assert not validator.is_valid({"a": {"name": "a", "addresses": [{"city": "b", "zip": "x"}]}, "b": [], "c": None})


def test_a_recursive_model_refers_to_itself():
    schema = schema_of(tree=Node)
    assert schema["properties"]["tree"] == {"$ref": "#/$defs/Node"}
    assert not Draft202012Validator(schema).is_valid({"tree": {"value": 1, "children": [{"value": "x"}]}})


def test_two_models_of_one_name_do_not_mix():
    schema = schema_of(a=Person, b=other_address(), c=Address)
    validator = Draft202012Validator(schema)
    good = {
        "a": {"name": "x", "addresses": [{"city": "b", "zip": "12345"}]},
        "b": {"street": "s"},
        "c": {"city": "b", "zip": "12345"},
    }
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "b": good["c"]})
    assert not validator.is_valid({**good, "c": good["b"]})


def test_a_dataclass_and_a_nested_model_of_one_name_do_not_mix():
    schema = schema_of(a=other_cat(), b=Pet)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"a": {"lives": 9}, "b": {"pet": {"kind": "cat"}}})
    assert not validator.is_valid({"a": {"kind": "cat"}, "b": {"pet": {"kind": "cat"}}})
    assert not validator.is_valid({"a": {"lives": 9}, "b": {"pet": {"lives": 9}}})
    for reference in schema["$defs"]["Pet"]["properties"]["pet"]["discriminator"]["mapping"].values():
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_a_generic_model_has_a_name_that_needs_no_escape():
    schema = schema_of(page=Page[int])
    assert schema["properties"]["page"] == {"$ref": "#/$defs/Page_int"}


def test_models_arrive_as_models():
    signature = signature_of(person=Person, numbers=Numbers, pet=Pet)
    found = coerce_arguments(
        signature,
        {"person": {"name": "a", "born": "2024-02-29"}, "numbers": [1, 2], "pet": {"pet": {"kind": "dog"}}},
    )
    assert found["person"] == Person(name="a", born=date(2024, 2, 29))
    assert found["numbers"].root == [1, 2]
    assert isinstance(found["pet"].pet, Dog)


def test_an_error_of_pydantic_names_the_place_in_the_arguments():
    with pytest.raises(CoercionError) as caught:
        coerce_arguments(signature_of(person=Person), {"person": {"name": "a", "addresses": [{"zip": "12345"}]}})
    assert str(caught.value) == "arguments.person.addresses[0].city is refused by Person: Field required"


def test_a_type_that_only_pydantic_knows_is_left_to_it():
    signature = signature_of(url=HttpUrl)
    assert input_schema(signature)["properties"]["url"]["format"] == "uri"
    assert coerce_arguments(signature, {"url": "https://example.org/a"})["url"].host == "example.org"
    with pytest.raises(CoercionError, match=r"arguments\.url is refused"):
        coerce_arguments(signature, {"url": "no url"})


def test_bounds_in_a_field_of_pydantic_are_bounds():
    schema = schema_of(limit=Annotated[int, Field(ge=1, lt=10, description="how many")])
    assert schema["properties"]["limit"] == {
        "type": "integer", "minimum": 1, "exclusiveMaximum": 10, "description": "how many",
    }  # fmt: skip


def test_models_in_a_result_are_what_the_output_schema_says():
    signature = signature_of(**{"return": list[Person]})
    schema = output_schema(signature)
    assert schema is not None
    person = Person(name="ä", addresses=[Address(city="b", zip="12345")], born=date(2024, 2, 29))
    outcome = outcome_of([person])
    assert outcome.data == [{"name": "ä", "addresses": [{"city": "b", "zip": "12345"}], "born": "2024-02-29"}]
    Draft202012Validator(schema).validate(outcome.data)


def test_a_single_model_as_result_has_an_object_at_the_root_of_its_schema():
    schema = output_schema(signature_of(**{"return": Person}))
    assert schema is not None
    assert schema["type"] == "object"
    assert set(schema["$defs"]) == {"Address"}


def test_a_root_model_is_its_root():
    assert outcome_of(Numbers([1, 2])).data == [1, 2]


def test_bytes_in_a_model_that_are_no_text_are_a_bad_result():
    with pytest.raises(InvokeFailed, match="can't be turned into JSON by pydantic") as caught:
        outcome_of({"blob": Blob(data=b"\xff")})
    assert caught.value.code == "result-invalid"
    assert "result.blob" in caught.value.message


def test_nan_in_a_model_is_found():
    class Reading(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="constants")
        value: float

    with pytest.raises(InvokeFailed, match=r"result\[0\]\.value is nan"):
        outcome_of([Reading(value=float("nan"))])

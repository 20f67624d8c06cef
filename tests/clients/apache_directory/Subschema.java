import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.directory.api.ldap.model.cursor.EntryCursor;
import org.apache.directory.api.ldap.model.entry.Attribute;
import org.apache.directory.api.ldap.model.entry.DefaultEntry;
import org.apache.directory.api.ldap.model.entry.Entry;
import org.apache.directory.api.ldap.model.entry.Value;
import org.apache.directory.api.ldap.model.message.SearchScope;
import org.apache.directory.api.ldap.model.schema.LdapSyntax;
import org.apache.directory.api.ldap.model.schema.SchemaManager;
import org.apache.directory.api.ldap.model.schema.parsers.AbstractSchemaParser;
import org.apache.directory.api.ldap.model.schema.parsers.AttributeTypeDescriptionSchemaParser;
import org.apache.directory.api.ldap.model.schema.parsers.DitContentRuleDescriptionSchemaParser;
import org.apache.directory.api.ldap.model.schema.parsers.LdapSyntaxDescriptionSchemaParser;
import org.apache.directory.api.ldap.model.schema.parsers.MatchingRuleDescriptionSchemaParser;
import org.apache.directory.api.ldap.model.schema.parsers.ObjectClassDescriptionSchemaParser;
import org.apache.directory.ldap.client.api.LdapConnectionConfig;
import org.apache.directory.ldap.client.api.LdapNetworkConnection;

/**
 * Reads the subschema and every entry with the Apache Directory API: HOST PORT BIND-DN PASSWORD BASE.
 * Each line that begins with "flaw" is something it does not take; "parsed" and "read" say how much there was.
 */
public class Subschema {
    public static void main(String[] arguments) {
        int status = 1;
        try {
            check(arguments);
            status = 0;
        } catch (Throwable error) {
            System.out.println("flaw " + error);
        }
        System.exit(status);
    }

    private static LdapNetworkConnection connect(String[] arguments) throws Exception {
        LdapConnectionConfig config = new LdapConnectionConfig();
        config.setLdapHost(arguments[0]);
        config.setLdapPort(Integer.parseInt(arguments[1]));
        config.setTimeout(20000);
        LdapNetworkConnection found = new LdapNetworkConnection(config);
        found.bind(arguments[2], arguments[3]);
        return found;
    }

    private static void check(String[] arguments) throws Exception {
        LdapNetworkConnection plain = connect(arguments);
        String subentry = plain.getRootDse("subschemaSubentry").get("subschemaSubentry").getString();
        parse(plain.lookup(subentry, "*", "+"));

        LdapNetworkConnection aware = connect(arguments);
        aware.loadSchema();
        SchemaManager schema = aware.getSchemaManager();
        for (Throwable error : schema.getErrors()) {
            System.out.println("flaw " + error.getMessage());
        }
        List<Entry> entries = new ArrayList<>();
        try (EntryCursor cursor = plain.search(arguments[4], "(objectClass=*)", SearchScope.SUBTREE, "*", "+")) {
            while (cursor.next()) {
                entries.add(cursor.get());
            }
        }
        int values = 0;
        for (Entry entry : entries) {
            new DefaultEntry(schema, entry);
            for (Attribute attribute : entry) {
                LdapSyntax syntax = schema.lookupAttributeTypeRegistry(attribute.getId()).getSyntax();
                for (Value value : attribute) {
                    values++;
                    Object held = syntax.isHumanReadable() ? value.getString() : value.getBytes();
                    // These names are no descriptors (RFC 4512 1.4), and clients know them.
                    boolean isOfOld = held instanceof String && ((String) held).startsWith("goauthentik.io/ldap/");
                    if (!syntax.getSyntaxChecker().isValidSyntax(held) && !isOfOld) {
                        System.out.println("flaw " + attribute.getId() + ": " + value);
                    }
                }
            }
        }
        System.out.println("read " + entries.size() + " entries, " + values + " values");
        int again = 0;
        try (EntryCursor cursor = aware.search(arguments[4], "(objectClass=*)", SearchScope.SUBTREE, "*", "+")) {
            while (cursor.next()) {
                cursor.get();
                again++;
            }
        }
        System.out.println("read " + again + " entries by the schema");
        aware.close();
        plain.close();
    }

    private static void parse(Entry subschema) {
        Map<String, AbstractSchemaParser<?>> parsers = new LinkedHashMap<>();
        parsers.put("ldapSyntaxes", new LdapSyntaxDescriptionSchemaParser());
        parsers.put("matchingRules", new MatchingRuleDescriptionSchemaParser());
        parsers.put("attributeTypes", new AttributeTypeDescriptionSchemaParser());
        parsers.put("objectClasses", new ObjectClassDescriptionSchemaParser());
        parsers.put("dITContentRules", new DitContentRuleDescriptionSchemaParser());
        parsers.forEach((name, parser) -> {
            parser.setQuirksMode(false);
            int count = 0;
            for (Value value : subschema.get(name)) {
                count++;
                try {
                    parser.parse(value.getString());
                } catch (Exception error) {
                    System.out.println("flaw " + value.getString() + ": " + error.getMessage());
                }
            }
            System.out.println("parsed " + count + " " + name);
        });
    }
}
